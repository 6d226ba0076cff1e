<?php
// A script of real use with PDO (mysqlnd): once with its emulated prepares, once
// with the server's. What it observes is printed, to be compared with a direct
// connection's; the last line is "passed", or it exits with another code.
declare(strict_types=1);
set_error_handler(fn ($n, $text, $file, $line) => throw new ErrorException($text, 0, $n, $file, $line));

$side = getenv('DRIVER_SIDE');
$database = getenv('DRIVER_DATABASE');
// Ids of this pass begin here, so that both can use the same tables.
$base = 0;

function connect(array $more = [], ?string $password = null, ?string $db = null): PDO
{
    global $database;
    $options = $more + [
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
        PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
        PDO::MYSQL_ATTR_LOCAL_INFILE => true,
        PDO::MYSQL_ATTR_INIT_COMMAND => "SET time_zone = '+02:00'",
    ];
    if (getenv('DRIVER_TLS') === '1') {
        $options[PDO::MYSQL_ATTR_SSL_CAPATH] = '/etc/ssl/certs';
        $options[PDO::MYSQL_ATTR_SSL_VERIFY_SERVER_CERT] = false;
    }
    $dsn = 'mysql:host=127.0.0.1;charset=utf8mb4;port=' . getenv('DRIVER_PORT') . ';dbname=' . ($db ?? $database);
    return new PDO($dsn, getenv('DRIVER_USER'), $password ?? getenv('DRIVER_PASSWORD'), $options);
}

function show(string $label, mixed ...$values): void
{
    echo $label, ' ', json_encode($values, JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}

function refused(string $label, callable $call): void
{
    try {
        $call();
    } catch (PDOException $e) {
        show($label, $e->errorInfo);
        return;
    }
    throw new Exception("$label: no error");
}

function statements(PDO $c): void
{
    global $base;
    $s = $c->prepare('INSERT INTO items (name, price, note) VALUES (:name, :price, :note)');
    foreach ([['ä 🦀', '12.50', null], ["it's \\", 1, 'ü'], ['c', 2, '']] as $i => [$name, $price, $note]) {
        $s->execute(['name' => "$name$base", 'price' => $price, 'note' => $note]);
        show('insert', $s->rowCount(), (int) $c->lastInsertId() > 0);
    }
    $s = $c->prepare('SELECT name, price, note FROM items WHERE name LIKE ? ORDER BY id');
    $s->execute(["%$base"]);
    show('rows', $s->fetchAll(), $s->columnCount(), $s->getColumnMeta(1));
    show('unchanged', $c->exec("UPDATE items SET price = price WHERE name = 'c$base'"));
    show('deleted', $c->exec("DELETE FROM items WHERE name = 'c$base'"));
}

function types(PDO $c): void
{
    global $base;
    $blob = str_repeat(implode(array_map('chr', range(0, 255))), 800);
    $columns = 'id, tiny, big, dec30, d, day, t, at, ts, y, s, bin, e, j';
    $s = $c->prepare("INSERT INTO types ($columns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    $row = [$base + 1, -128, '18446744073709551615', '1.5', '-1.5e10', '2024-02-29', '-30:00:00.007',
        '2024-02-29 12:30:15.123456', '2024-02-29 12:30:15.5', 2155, "日本語 🦀 '\\ \0", $blob, 'big', '{"k": [1, "ü"]}'];
    foreach ($row as $i => $value) {
        $s->bindValue($i + 1, $value, $i === 11 ? PDO::PARAM_LOB : (is_int($value) ? PDO::PARAM_INT : PDO::PARAM_STR));
    }
    $s->execute();
    $s->execute([$base + 2, ...array_fill(0, 13, null)]);
    $s = $c->prepare("SELECT $columns FROM types WHERE id > ? ORDER BY id");
    $s->execute([$base]);
    while ($row = $s->fetch()) {
        $row['bin'] = $row['bin'] === null ? null : [strlen($row['bin']), md5($row['bin'])];
        $row['j'] = $row['j'] === null ? null : json_decode($row['j']);
        show('types', $row);
    }
}

function transactions(PDO $c): void
{
    global $base;
    $c->beginTransaction();
    $c->exec("INSERT INTO accounts VALUES ($base + 1, 1)");
    $c->rollBack();
    $c->beginTransaction();
    show('in transaction', $c->inTransaction());
    $c->exec("INSERT INTO accounts VALUES ($base + 2, 1), ($base + 3, 3)");
    $c->exec('SAVEPOINT s');
    $c->exec("UPDATE accounts SET balance = 0 WHERE id = $base + 2");
    $c->exec('ROLLBACK TO s');
    $c->commit();
    $c->setAttribute(PDO::ATTR_AUTOCOMMIT, 0);
    $c->exec("UPDATE accounts SET balance = balance + 1 WHERE id = $base + 2");
    $c->commit();
    $c->exec("UPDATE accounts SET balance = balance + 1 WHERE id = $base + 3");
    $c->rollBack();
    $c->setAttribute(PDO::ATTR_AUTOCOMMIT, 1);
    show('transactions', $c->query("SELECT * FROM accounts WHERE id > $base ORDER BY id")->fetchAll(PDO::FETCH_KEY_PAIR));
}

function several(PDO $c, bool $emulated): void
{
    global $side, $base;
    $sql = $emulated ? 'SELECT 1 AS one; SELECT 2 AS two; CALL ' : 'CALL ';
    $s = $c->prepare("$sql $side.two_sets(?)");
    $s->execute([7]);
    do {
        show('set', $s->columnCount() > 0 ? $s->fetchAll() : null);
    } while ($s->nextRowset());
    $s->closeCursor();
    $c->setAttribute(PDO::MYSQL_ATTR_USE_BUFFERED_QUERY, false);
    $n = 0;
    foreach ($c->query('SELECT a.name FROM items a, items b, items c') as $row) {
        $n++;
    }
    show('unbuffered', $n > 0);
    $c->setAttribute(PDO::MYSQL_ATTR_USE_BUFFERED_QUERY, true);
    $file = tempnam(sys_get_temp_dir(), 'csv');
    file_put_contents($file, implode(array_map(fn ($i) => ($base + $i) . ",name $i,0.5\n", range(1, 300))));
    show('loaded', $c->exec("LOAD DATA LOCAL INFILE '$file' INTO TABLE $side.loaded FIELDS TERMINATED BY ','"));
    unlink($file);
}

function errors(PDO $c): void
{
    global $base;
    refused('duplicate', fn () => $c->prepare('INSERT INTO types (id) VALUES (?)')->execute([$base + 1]));
    refused('syntax', fn () => $c->query('SELEC'));
    refused('no column', fn () => $c->prepare('SELECT nothing FROM items')->execute());
    $c->exec("SET sql_mode = ''");
    $c->exec("INSERT INTO items (id, name, price) VALUES ($base + 900, 'w', 1.239)");
    show('warnings', $c->query('SHOW WARNINGS')->fetchAll());
    refused('password', fn () => connect([], 'wrong'));
    refused('database', fn () => connect([], null, 'nowhere'));
    $found = connect([PDO::MYSQL_ATTR_FOUND_ROWS => true]);
    show('found rows', $found->exec("UPDATE items SET price = price WHERE id = $base + 900"));
    show('persistent', connect([PDO::ATTR_PERSISTENT => true])->query('SELECT @kept')->fetchAll());
}

foreach ([true, false] as $emulated) {
    $c = connect([PDO::ATTR_EMULATE_PREPARES => $emulated]);
    statements($c);
    types($c);
    transactions($c);
    several($c, $emulated);
    errors($c);
    $c = null;
    $base += 10000;
}
echo "passed\n";
