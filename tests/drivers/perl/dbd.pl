# A script of real use with DBI: DBD::mysql or DBD::MariaDB, as the first argument
# says, with its emulated prepares and then with the server's. What it observes
# is printed, to be compared with a direct connection's; the last line is
# "passed", or it dies.
use strict;
use warnings;
use utf8;
use DBI qw(:sql_types);
use File::Temp;

$| = 1;
binmode STDOUT, ':encoding(UTF-8)';
my $driver = shift @ARGV;
my $own = lc $driver;
my ($side, $database) = @ENV{qw(DRIVER_SIDE DRIVER_DATABASE)};
# Ids of this pass begin here, so that both can use the same tables.
my $base = 0;
my $prepare = 0;

sub connection {
    my (%more) = @_;
    my $tls = $ENV{DRIVER_TLS} eq '1' ? ";${own}_ssl=1;${own}_ssl_optional=1" : '';
    my $in = $more{database} // $database;
    my $dsn = "DBI:$driver:host=127.0.0.1;port=$ENV{DRIVER_PORT};database=$in;"
        . "${own}_server_prepare=$prepare;${own}_local_infile=1$tls" . ($more{dsn} // '');
    my $password = $more{password} // $ENV{DRIVER_PASSWORD};
    my %utf8 = $driver eq 'mysql' ? (mysql_enable_utf8mb4 => 1) : ();
    return DBI->connect($dsn, $ENV{DRIVER_USER}, $password, { RaiseError => 1, PrintError => 0, %utf8 });
}

sub shown {
    my ($value) = @_;
    return 'NULL' unless defined $value;
    return ref $value ? '[' . join(', ', map { shown($_) } @$value) . ']' : "$value";
}

sub show { my ($label, @values) = @_; print join(' ', $label, map { shown($_) } @values), "\n" }

sub refused {
    my ($label, $call) = @_;
    die "$label: no error" if eval { $call->(); 1 };
    show($label, $DBI::err, $DBI::state, $DBI::errstr);
}

sub statements {
    my ($c) = @_;
    my $s = $c->prepare('INSERT INTO items (name, price, note) VALUES (?, ?, ?)');
    show('insert', $s->execute("ä 🦀 $base", '12.50', undef), $s->{"${own}_insertid"} > 0 ? 1 : 0);
    $s->execute("n$base-$_", $_, 'ü') for 1 .. 20;
    my $tuples = $s->execute_array({ ArrayTupleStatus => \my @status }, [map { "a$base-$_" } 1 .. 5], [1 .. 5], undef);
    show('array', $tuples, \@status);
    $s = $c->prepare('SELECT name, price, note FROM items WHERE name LIKE ? ORDER BY id');
    $s->execute("n$base-%");
    show('metadata', $s->{NAME}, $s->{NULLABLE}, $s->{PRECISION}, $s->{"${own}_type_name"});
    show('rows', $s->fetchall_arrayref);
    show('found rows', $c->do("UPDATE items SET price = price WHERE name = 'n$base-1'"), $c->{"${own}_info"});
    show('none', $c->do("DELETE FROM items WHERE name = 'nobody'"));
    show('quoted', $c->quote("it's \\"), $c->quote_identifier('a`b'));
}

sub types {
    my ($c) = @_;
    my $blob = join('', map { chr } 0 .. 255) x 800;
    my $columns = 'id, tiny, big, dec30, d, day, t, at, ts, y, s, bin, e, j';
    my $s = $c->prepare("INSERT INTO types ($columns) VALUES (" . join(', ', ('?') x 14) . ')');
    my @row = ($base + 1, -128, '18446744073709551615', '1.5', '-1.5e10', '2024-02-29', '-30:00:00.007',
        '2024-02-29 12:30:15.123456', '2024-02-29 12:30:15.5', 2155, "日本語 🦀 '\\ \0", $blob, 'big', '{"k": [1, "x"]}');
    $s->bind_param($_ + 1, $row[$_], $_ == 11 ? SQL_BLOB : ()) for 0 .. $#row;
    $s->execute;
    $s->bind_param($_, $_ == 1 ? $base + 2 : undef) for 1 .. 14;
    $s->execute;
    $s = $c->prepare("SELECT $columns, LENGTH(bin), CRC32(bin) FROM types WHERE id > ? ORDER BY id");
    $s->execute($base);
    while (my @got = $s->fetchrow_array) {
        die 'blob' if defined $got[11] && $got[11] ne $blob;
        $got[11] = '';
        $got[13] =~ s/\s//g if defined $got[13];
        show('types', @got);
    }
}

sub transactions {
    my ($c) = @_;
    $c->begin_work;
    $c->do('INSERT INTO accounts VALUES (?, 1)', undef, $base + 1);
    $c->rollback;
    $c->begin_work;
    $c->do('INSERT INTO accounts VALUES (?, 1), (?, 3)', undef, $base + 2, $base + 3);
    $c->do('SAVEPOINT s');
    $c->do('UPDATE accounts SET balance = 0 WHERE id = ?', undef, $base + 2);
    $c->do('ROLLBACK TO s');
    $c->commit;
    $c->{AutoCommit} = 0;
    $c->do('UPDATE accounts SET balance = balance + 1 WHERE id = ?', undef, $base + 2);
    $c->commit;
    $c->do('UPDATE accounts SET balance = balance + 1 WHERE id = ?', undef, $base + 3);
    $c->rollback;
    $c->{AutoCommit} = 1;
    show('transactions', $c->selectall_arrayref('SELECT * FROM accounts WHERE id > ? ORDER BY id', undef, $base));
}

sub several {
    my ($c) = @_;
    # Several results, like streaming, work with text statements only.
    my $s = $c->prepare("CALL $side.two_sets(7)", { "${own}_server_prepare" => 0 });
    $s->execute;
    do {
        show('set', $s->{NUM_OF_FIELDS} ? $s->fetchall_arrayref : undef);
    } while ($s->more_results);
    $c->do('SET @b = 0, @c = 4');
    $c->do("CALL $side.outs(2, \@b, \@c)");
    show('outs', $c->selectall_arrayref('SELECT @b, @c'));
    # DBD::MariaDB 1.22 loses such rows.
    if (!$prepare && $driver eq 'mysql') {
        $s = $c->prepare('SELECT a.name FROM items a, items b', { "${own}_use_result" => 1 });
        $s->execute;
        my $n = 0;
        $n++ while $s->fetch;
        show('streamed', $n);
    }
    my $file = File::Temp->new;
    print $file join('', map { $base + $_ . ",name $_,0.5\n" } 1 .. 300);
    $file->flush;
    show('loaded', $c->do("LOAD DATA LOCAL INFILE '" . $file->filename . "' INTO TABLE $side.loaded FIELDS TERMINATED BY ','"));
}

sub errors {
    my ($c) = @_;
    refused('duplicate', sub { $c->do('INSERT INTO types (id) VALUES (?)', undef, $base + 1) });
    refused('syntax', sub { $c->do('SELEC') });
    refused('no column', sub { $c->selectall_arrayref('SELECT nothing FROM items') });
    $c->do("SET sql_mode = ''");
    $c->do('INSERT INTO items (id, name, price) VALUES (?, ?, 1.239)', undef, $base + 900, 'w');
    show('warnings', $c->{"${own}_warning_count"} // '', $c->selectall_arrayref('SHOW WARNINGS'));
    refused('password', sub { connection(password => 'wrong') });
    refused('database', sub { connection(database => 'nowhere') });
    my $changed = connection(dsn => ";${own}_client_found_rows=0");
    show('changed rows', $changed->do('UPDATE items SET name = name WHERE id = ?', undef, $base + 900));
    my $id = $c->{"${own}_thread_id"} // $c->{thread_id};
    my $pid = fork // die 'fork';
    if (!$pid) {
        # The child's copies of the connections must not say goodbye.
        $_->{InactiveDestroy} = 1 for $c, $changed;
        select undef, undef, undef, 0.2;
        my $ok = eval { connection()->do("KILL QUERY $id"); 1 };
        require POSIX;
        POSIX::_exit($ok ? 0 : 1);
    }
    my $got = eval { shown($c->selectall_arrayref('SELECT SLEEP(20)')) } // "error $DBI::err";
    waitpid $pid, 0;
    die 'KILL QUERY failed' if $?;
    show('killed', $got, $c->selectall_arrayref('SELECT 1'), $c->ping);
}

sub reconnects {
    my $c = connection();
    $c->{"${own}_auto_reconnect"} = 1;
    my ($id) = $c->selectrow_array('SELECT CONNECTION_ID()');
    my $killer = connection();
    $killer->do("KILL $id");
    select undef, undef, undef, 0.1;
    show('reconnected', $c->do("INSERT INTO accounts VALUES ($base + 50, 1)"));
    show('rows', $c->selectall_arrayref("SELECT * FROM accounts WHERE id = $base + 50"));
}

for my $pass (0, 1) {
    $prepare = $pass;
    my $c = connection();
    $_->($c) for \&statements, \&types, \&transactions, \&several, \&errors;
    $c->disconnect;
    # The C library does not take the end of a TLS connection for a lost one.
    reconnects() if $ENV{DRIVER_TLS} ne '1';
    $base += 10000;
}
print "passed\n";
