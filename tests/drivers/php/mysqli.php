<?php
// A script of real use with mysqli (mysqlnd). What it observes is printed, to be
// compared with a direct connection's; the last line is "passed", or it exits
// with another code. LOAD DATA LOCAL needs -d mysqli.allow_local_infile=1.
declare(strict_types=1);
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
set_error_handler(fn ($n, $text, $file, $line) => throw new ErrorException($text, 0, $n, $file, $line));

$side = getenv('DRIVER_SIDE');
$database = getenv('DRIVER_DATABASE');

function connect(int $flags = 0, ?string $password = null, ?string $db = null): mysqli
{
    global $database;
    $c = mysqli_init();
    $c->options(MYSQLI_OPT_LOCAL_INFILE, 1);
    $c->options(MYSQLI_OPT_INT_AND_FLOAT_NATIVE, 1);
    $tls = getenv('DRIVER_TLS') === '1' ? MYSQLI_CLIENT_SSL | MYSQLI_CLIENT_SSL_DONT_VERIFY_SERVER_CERT : 0;
    $password ??= getenv('DRIVER_PASSWORD');
    $port = (int) getenv('DRIVER_PORT');
    $c->real_connect('127.0.0.1', getenv('DRIVER_USER'), $password, $db ?? $database, $port, null, $flags | $tls);
    $c->set_charset('utf8mb4');
    return $c;
}

function show(string $label, mixed ...$values): void
{
    echo $label, ' ', json_encode($values, JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}

function refused(string $label, callable $call): void
{
    try {
        $call();
    } catch (mysqli_sql_exception $e) {
        show($label, $e->getCode(), $e->getSqlState(), $e->getMessage());
        return;
    }
    throw new Exception("$label: no error");
}

function statements(mysqli $c): void
{
    $c->query("INSERT INTO items (name, price) VALUES ('ä 🦀', 12.50)");
    show('insert', $c->affected_rows, $c->insert_id, $c->info);
    $c->query("INSERT INTO items (name, price) VALUES ('b', 1), ('c', 2), ('d', 3)");
    show('many', $c->affected_rows, $c->insert_id, $c->info);
    $r = $c->query('SELECT id, name, price, note FROM items ORDER BY id');
    show('fields', array_map(fn ($f) => [$f->name, $f->table, $f->type, $f->flags, $f->length], $r->fetch_fields()));
    show('rows', $r->fetch_all(MYSQLI_ASSOC));
    $c->query("UPDATE items SET price = price WHERE name = 'b'");
    show('unchanged', $c->affected_rows, $c->info);
    $r = $c->query('SELECT a.name FROM items a, items b', MYSQLI_USE_RESULT);
    $n = 0;
    while ($r->fetch_row()) {
        $n++;
    }
    $r->free();
    show('streamed', $n, $c->query('SELECT FOUND_ROWS()')->fetch_row());
    show('escaped', $c->real_escape_string("'\\\n"), $c->character_set_name());
}

function prepared(mysqli $c): void
{
    $s = $c->prepare('INSERT INTO types (id, big, dec30, d, day, t, at, s, bin, j) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)');
    [$id, $big, $dec, $d, $day, $t, $at, $text, $bin, $json] = [1, '18446744073709551615', '1.5', -1.5e10,
        '2024-02-29', '-30:00:00.007', '2024-02-29 12:30:15.123456', "日本語 🦀 '\\", null, '{"k": [1, "ü", null]}'];
    $s->bind_param('issdssssbs', $id, $big, $dec, $d, $day, $t, $at, $text, $bin, $json);
    $blob = str_repeat(implode(array_map('chr', range(0, 255))), 800);
    foreach (str_split($blob, 60000) as $part) {
        $s->send_long_data(8, $part);
    }
    $s->execute();
    show('long data', $s->affected_rows);
    [$id, $big, $dec, $d, $day, $t, $at, $text, $json] = [2, null, null, null, null, null, null, null, null];
    $s->execute();
    $s->reset();
    $s->close();
    $s = $c->prepare('SELECT id, big, dec30, d, day, t, at, s, bin, j FROM types WHERE id > ? ORDER BY id');
    $least = 0;
    $s->bind_param('i', $least);
    $s->execute();
    foreach ($s->get_result() as $row) {
        $row['bin'] = $row['bin'] === null ? null : [strlen($row['bin']), md5($row['bin'])];
        $row['j'] = $row['j'] === null ? null : json_decode($row['j']);
        show('types', $row);
    }
    $s->close();
    // The server keeps the rows; the client fetches them one by one.
    for ($i = 0; $i < 20; $i++) {
        $c->execute_query('INSERT INTO items (name, price) VALUES (?, ?)', ["p$i", $i]);
    }
    $s = $c->prepare("SELECT name, price FROM items WHERE name LIKE 'p%' ORDER BY id");
    $s->attr_set(MYSQLI_STMT_ATTR_CURSOR_TYPE, MYSQLI_CURSOR_TYPE_READ_ONLY);
    $s->execute();
    $s->bind_result($name, $price);
    $all = [];
    while ($s->fetch()) {
        $all[] = "$name=$price";
    }
    show('cursor', $all);
    $s->close();
    show('execute_query', $c->execute_query('SELECT COUNT(*), ? FROM items', ['x'])->fetch_row());
}

function transactions(mysqli $c): void
{
    $c->begin_transaction();
    $c->query('INSERT INTO accounts VALUES (1, 1)');
    $c->rollback();
    $c->begin_transaction(MYSQLI_TRANS_START_WITH_CONSISTENT_SNAPSHOT);
    $c->query('INSERT INTO accounts VALUES (2, 1), (3, 3)');
    $c->savepoint('s');
    $c->query('UPDATE accounts SET balance = 0 WHERE id = 2');
    $c->query('ROLLBACK TO s');
    $c->commit();
    $c->autocommit(false);
    $c->query('UPDATE accounts SET balance = balance + 1 WHERE id = 2');
    $c->commit(MYSQLI_TRANS_COR_AND_CHAIN);
    $c->query('UPDATE accounts SET balance = balance + 1 WHERE id = 3');
    $c->rollback();
    $c->autocommit(true);
    show('transactions', $c->query('SELECT * FROM accounts ORDER BY id')->fetch_all());
}

function several(mysqli $c): void
{
    global $side;
    $c->multi_query("SELECT 1 AS one; INSERT INTO $side.loaded VALUES (-1, 'x', 1); CALL $side.two_sets(7)");
    do {
        $r = $c->store_result();
        show('set', $r ? $r->fetch_all(MYSQLI_ASSOC) : null, $c->affected_rows);
    } while ($c->more_results() && $c->next_result());
    $s = $c->prepare("CALL $side.two_sets(?)");
    $n = 3;
    $s->bind_param('i', $n);
    $s->execute();
    do {
        $r = $s->get_result();
        show('prepared set', $r ? $r->fetch_all() : null);
    } while ($s->more_results() && $s->next_result());
    $s->close();
    $c->query('SET @b = 0, @c = 4');
    $c->query("CALL $side.outs(2, @b, @c)");
    show('outs', $c->query('SELECT @b, @c')->fetch_row());
}

function errors(mysqli $c): void
{
    refused('duplicate', fn () => $c->query('INSERT INTO types (id) VALUES (1)'));
    refused('syntax', fn () => $c->query('SELEC'));
    refused('prepare', fn () => $c->prepare('SELECT nothing FROM items'));
    $c->query("SET sql_mode = ''");
    $c->query("INSERT INTO items (id, name, price) VALUES (900, 'w', 1.239)");
    $w = $c->get_warnings();
    show('warnings', $c->warning_count, [$w->errno, $w->sqlstate, $w->message]);
    refused('password', fn () => connect(password: 'wrong'));
    refused('database', fn () => connect(db: 'nowhere'));
    $killer = connect();
    $c->query('SELECT SLEEP(20) AS s', MYSQLI_ASYNC);
    usleep(200000);
    $killer->query("KILL QUERY {$c->thread_id}");
    try {
        show('killed', $c->reap_async_query()->fetch_row());
    } catch (mysqli_sql_exception $e) {
        show('killed', $e->getCode());
    }
    show('after', $c->query('SELECT 1')->fetch_row());
    $killer->close();
}

function modes(mysqli $c): void
{
    global $side, $database;
    $found = connect(MYSQLI_CLIENT_FOUND_ROWS);
    $found->query("UPDATE items SET price = price WHERE name = 'b'");
    show('found rows', $found->affected_rows, $found->info);
    $found->set_charset('latin1');
    show('latin1', $found->query("SELECT @@character_set_client, HEX('\xfc'), name FROM items WHERE id = 1")->fetch_row());
    $found->change_user(getenv('DRIVER_USER'), getenv('DRIVER_PASSWORD'), $side);
    $is = fn (string $d) => $found->query("SELECT DATABASE() = '$d', @@character_set_client")->fetch_row();
    show('changed user', $is($side));
    $found->select_db($database);
    show('selected', $is($database));
    refused('change to wrong', fn () => $found->change_user(getenv('DRIVER_USER'), 'wrong', $side));
    $file = tempnam(sys_get_temp_dir(), 'csv');
    file_put_contents($file, implode(array_map(fn ($i) => "$i,name $i,0.5\n", range(1, 500))));
    $c->query("LOAD DATA LOCAL INFILE '$file' INTO TABLE $side.loaded FIELDS TERMINATED BY ','");
    show('loaded', $c->affected_rows, $c->info);
    unlink($file);
    // Kept by a persistent connection, which is reset by a change of user.
    $again = new mysqli('p:127.0.0.1', getenv('DRIVER_USER'), getenv('DRIVER_PASSWORD'), $database, (int) getenv('DRIVER_PORT'));
    $again->query('SET @kept = 1');
    $again->close();
    $again = new mysqli('p:127.0.0.1', getenv('DRIVER_USER'), getenv('DRIVER_PASSWORD'), $database, (int) getenv('DRIVER_PORT'));
    show('persistent', $again->query('SELECT @kept')->fetch_row());
    $again->query('INSERT INTO accounts VALUES (10, 10)');
    $again->close();
}

$c = connect();
foreach (['statements', 'prepared', 'transactions', 'several', 'errors', 'modes'] as $part) {
    $part($c);
}
$c->close();
echo "passed\n";
