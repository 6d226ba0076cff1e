// A script of real use with a JDBC driver, whose jar is on the class path: once
// with its defaults, once with batches rewritten, bulk statements and server
// prepares. What it observes is printed, to be compared with a direct
// connection's; the last line is "passed", or it exits with another code.

import java.io.ByteArrayInputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.*;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public class Main {
    static final String SIDE = System.getenv("DRIVER_SIDE");
    static final String DATABASE = System.getenv("DRIVER_DATABASE");
    static final boolean VERSION_3;

    static {
        try {
            VERSION_3 = DriverManager.getDriver("jdbc:mariadb://localhost/").getMajorVersion() >= 3;
        } catch (SQLException e) {
            throw new IllegalStateException(e);
        }
    }

    // Ids of this pass begin here, so that all can use the same tables.
    static int base = 0;
    static String pass = "";

    interface Call {
        void run() throws Exception;
    }

    static Connection connect(String more) throws SQLException {
        return connect(more, DATABASE, System.getenv("DRIVER_PASSWORD"));
    }

    static Connection connect(String more, String database, String password) throws SQLException {
        boolean tls = System.getenv("DRIVER_TLS").equals("1");
        String secure = VERSION_3 ? "sslMode=" + (tls ? "trust" : "disable")
            : "useSsl=" + tls + "&trustServerCertificate=true";
        String url = "jdbc:mariadb://127.0.0.1:" + System.getenv("DRIVER_PORT") + "/" + database
            + "?allowPublicKeyRetrieval=true&allowLocalInfile=true&" + secure + pass + more;
        return DriverManager.getConnection(url, System.getenv("DRIVER_USER"), password);
    }

    static void show(String label, Object... values) {
        System.out.println(label + " " + Arrays.deepToString(values));
    }

    static void refused(String label, Call call) throws Exception {
        try {
            call.run();
        } catch (SQLException e) {
            // Version 3 puts the connection's id before the server's message.
            String text = String.valueOf(e.getMessage()).replaceAll("\\(conn[:=]\\d+\\) ", "").lines().findFirst().orElse("");
            show(label, e.getErrorCode(), e.getSQLState(), text.replaceAll("port=\\d+|:\\d{4,5}", ""));
            return;
        }
        throw new IllegalStateException(label + ": no error");
    }

    static List<List<Object>> rows(ResultSet r) throws SQLException {
        List<List<Object>> all = new ArrayList<>();
        int columns = r.getMetaData().getColumnCount();
        while (r.next()) {
            List<Object> row = new ArrayList<>();
            for (int i = 1; i <= columns; i++) {
                Object value = r.getObject(i);
                row.add(value instanceof byte[] b ? "bytes " + b.length + " " + Arrays.hashCode(b) : value);
            }
            all.add(row);
        }
        r.close();
        return all;
    }

    static List<List<Object>> read(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            return rows(s.executeQuery(sql));
        }
    }

    static void statements(Connection c) throws Exception {
        String sql = "INSERT INTO items (name, price) VALUES (?, ?)";
        try (PreparedStatement s = c.prepareStatement(sql, Statement.RETURN_GENERATED_KEYS)) {
            s.setString(1, "ä 🦀 " + base);
            s.setBigDecimal(2, new BigDecimal("12.50"));
            show("insert", s.executeUpdate());
            List<List<Object>> keys = rows(s.getGeneratedKeys());
            show("generated", keys.size());
            long id = ((Number) keys.get(0).get(0)).longValue();
            show("by id", read(c, "SELECT name FROM items WHERE id = " + id));
        }
        try (PreparedStatement s = c.prepareStatement("SELECT name, price, note FROM items WHERE name LIKE ? ORDER BY id")) {
            s.setString(1, "%" + base);
            ResultSet r = s.executeQuery();
            ResultSetMetaData m = r.getMetaData();
            show("metadata", m.getColumnTypeName(2), m.getPrecision(2), m.isNullable(1), m.getColumnClassName(2));
            show("rows", rows(r));
        }
        try (Statement s = c.createStatement()) {
            show("found rows", s.executeUpdate("UPDATE items SET price = price WHERE name = 'ä 🦀 " + base + "'"));
        }
    }

    static void batches(Connection c) throws Exception {
        try (PreparedStatement s = c.prepareStatement("INSERT INTO items (name, price) VALUES (?, ?)")) {
            for (int i = 0; i < 60; i++) {
                s.setString(1, "n" + base + "-" + i);
                s.setInt(2, i);
                s.addBatch();
            }
            int[] counts = s.executeBatch();
            show("batch", counts.length);
        }
        try (PreparedStatement s = c.prepareStatement("UPDATE items SET price = price + ?, note = ? WHERE name = ?")) {
            for (int i = 0; i < 20; i++) {
                s.setInt(1, i);
                s.setString(2, i % 3 == 0 ? null : "ü" + i);
                s.setString(3, "n" + base + "-" + i);
                s.addBatch();
            }
            show("update batch", s.executeBatch().length);
        }
        try (PreparedStatement s = c.prepareStatement(
                "INSERT INTO accounts VALUES (?, ?) ON DUPLICATE KEY UPDATE balance = balance + VALUES(balance)")) {
            for (int i = 0; i < 10; i++) {
                s.setInt(1, base + i % 5);
                s.setLong(2, i);
                s.addBatch();
            }
            show("upsert batch", s.executeBatch().length);
        }
        try (Statement s = c.createStatement()) {
            for (int i = 0; i < 5; i++) {
                s.addBatch("UPDATE accounts SET balance = balance * 2 WHERE id = " + (base + i));
            }
            show("text batch", s.executeBatch());
        }
        show("after", read(c, "SELECT COUNT(*), SUM(price), COUNT(note) FROM items WHERE name LIKE 'n" + base + "-%'"));
        show("accounts", read(c, "SELECT * FROM accounts WHERE id >= " + base + " ORDER BY id"));
        // The third row is there already: what comes after it depends on the driver.
        c.setAutoCommit(false);
        refused("batch with a duplicate", () -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO accounts VALUES (?, 1)")) {
                for (int i : new int[] {base + 20, base + 21, base + 1, base + 22}) {
                    s.setInt(1, i);
                    s.addBatch();
                }
                s.executeBatch();
            }
        });
        c.rollback();
        c.setAutoCommit(true);
    }

    static void types(Connection c) throws Exception {
        byte[] blob = new byte[200_000];
        for (int i = 0; i < blob.length; i++) {
            blob[i] = (byte) i;
        }
        String columns = "id, tiny, big, dec30, d, day, t, at, ts, s, txt, bin, bits, e, j";
        String sql = "INSERT INTO types (" + columns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        try (PreparedStatement s = c.prepareStatement(sql)) {
            s.setInt(1, base + 1);
            s.setByte(2, (byte) -128);
            s.setObject(3, new BigInteger("18446744073709551615"));
            s.setBigDecimal(4, new BigDecimal("1.5"));
            s.setDouble(5, -1.5e10);
            s.setObject(6, LocalDate.of(2024, 2, 29));
            s.setTime(7, Time.valueOf("12:30:15"));
            s.setTimestamp(8, Timestamp.valueOf("2024-02-29 12:30:15.123456"));
            s.setObject(9, LocalDateTime.of(2024, 2, 29, 12, 30, 15, 500_000_000));
            s.setString(10, "日本語 🦀 '\\ \0");
            s.setCharacterStream(11, new StringReader("x".repeat(70_000)));
            s.setBinaryStream(12, new ByteArrayInputStream(blob));
            s.setBytes(13, new byte[] {1, (byte) 0xff});
            s.setString(14, "big");
            s.setString(15, "[1, \"ü\"]");
            s.executeUpdate();
            s.setInt(1, base + 2);
            for (int i = 2; i <= 15; i++) {
                s.setNull(i, Types.NULL);
            }
            s.executeUpdate();
        }
        String text = columns.replace("txt", "LENGTH(txt)");
        show("types", read(c, "SELECT " + text + " FROM types WHERE id > " + base + " ORDER BY id"));
        try (PreparedStatement s = c.prepareStatement("SELECT " + text + " FROM types WHERE id > ? ORDER BY id")) {
            for (int i = 0; i < 3; i++) {
                s.setInt(1, base);
                show("prepared types", rows(s.executeQuery()));
            }
        }
    }

    static void transactions(Connection c) throws Exception {
        c.setAutoCommit(false);
        c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        try (Statement s = c.createStatement()) {
            s.executeUpdate("INSERT INTO accounts VALUES (" + (base + 31) + ", 1)");
            c.rollback();
            s.executeUpdate("INSERT INTO accounts VALUES (" + (base + 32) + ", 1)");
            Savepoint point = c.setSavepoint("s");
            s.executeUpdate("UPDATE accounts SET balance = 0 WHERE id = " + (base + 32));
            c.rollback(point);
            c.commit();
        }
        c.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
        c.setReadOnly(true);
        show("read only", read(c, "SELECT * FROM accounts WHERE id > " + (base + 30)));
        c.rollback();
        c.setReadOnly(false);
        c.setAutoCommit(true);
        show("state", c.getTransactionIsolation(), c.getAutoCommit(), c.getCatalog().equals(DATABASE));
    }

    static void several(Connection c) throws Exception {
        try (CallableStatement s = c.prepareCall("{CALL " + SIDE + ".two_sets(?)}")) {
            s.setInt(1, 7);
            boolean set = s.execute();
            while (set || s.getUpdateCount() != -1) {
                show("set", set ? rows(s.getResultSet()) : s.getUpdateCount());
                set = s.getMoreResults();
            }
        }
        try (CallableStatement s = c.prepareCall("{CALL " + SIDE + ".outs(?, ?, ?)}")) {
            s.setInt(1, 2);
            s.setInt(3, 4);
            s.registerOutParameter(2, Types.INTEGER);
            s.registerOutParameter(3, Types.INTEGER);
            s.execute();
            show("outs", s.getInt(2), s.getInt(3));
        }
        try (Connection multi = connect("&allowMultiQueries=true"); Statement s = multi.createStatement()) {
            boolean set = s.execute("SELECT 1; INSERT INTO " + SIDE + ".loaded VALUES (-1 - " + base + ", 'x', 1); SELECT 'zwei', NULL");
            while (set || s.getUpdateCount() != -1) {
                show("multi", set ? rows(s.getResultSet()) : s.getUpdateCount());
                set = s.getMoreResults();
            }
        }
        // Fetched as they come; a statement in between must wait for the rest.
        try (Statement s = c.createStatement(ResultSet.TYPE_FORWARD_ONLY, ResultSet.CONCUR_READ_ONLY)) {
            s.setFetchSize(10);
            ResultSet r = s.executeQuery("SELECT a.name FROM items a, items b WHERE a.id < 40 ORDER BY a.id, b.id");
            int n = 0;
            while (n < 25 && r.next()) {
                n++;
            }
            show("between", read(c, "SELECT 1"));
            while (r.next()) {
                n++;
            }
            show("streamed", n > 25);
        }
        Path file = Files.createTempFile("lockstep", ".csv");
        StringBuilder csv = new StringBuilder();
        for (int i = 0; i < 300; i++) {
            csv.append(base + i).append(",name ").append(i).append(",0.5\n");
        }
        Files.writeString(file, csv);
        try (Statement s = c.createStatement()) {
            show("loaded", s.executeUpdate("LOAD DATA LOCAL INFILE '" + file + "' INTO TABLE " + SIDE
                + ".loaded FIELDS TERMINATED BY ','"));
        }
        Files.delete(file);
    }

    static void errors(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            refused("duplicate", () -> s.executeUpdate("INSERT INTO types (id) VALUES (" + (base + 1) + ")"));
            refused("syntax", () -> s.executeQuery("SELEC"));
            refused("no column", () -> c.prepareStatement("SELECT nothing FROM items").executeQuery());
            s.execute("SET sql_mode = ''");
            s.executeUpdate("INSERT INTO items (id, name, price) VALUES (" + (base + 900) + ", 'w', 1.239)");
            for (SQLWarning w = s.getWarnings(); w != null; w = w.getNextWarning()) {
                show("warning", w.getErrorCode(), w.getSQLState(), w.getMessage());
            }
            refused("password", () -> connect("", DATABASE, "wrong"));
            refused("database", () -> connect("", "nowhere", System.getenv("DRIVER_PASSWORD")));
            // On MySQL a SLEEP that is interrupted answers 1.
            s.setQueryTimeout(1);
            sleep("timeout", s);
            s.setQueryTimeout(0);
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(200);
                    s.cancel();
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
            });
            canceller.start();
            sleep("cancelled", s);
            canceller.join();
            show("after", read(c, "SELECT 1"), c.isValid(2));
        }
        try (Connection changed = connect("&useAffectedRows=true"); Statement s = changed.createStatement()) {
            show("changed rows", s.executeUpdate("UPDATE items SET name = name WHERE id = " + (base + 900)));
            changed.setCatalog(SIDE);
            show("catalog", read(changed, "SELECT DATABASE() = '" + SIDE + "'"));
        }
    }

    static void sleep(String label, Statement s) throws Exception {
        try {
            show(label, rows(s.executeQuery("SELECT SLEEP(20)")));
        } catch (SQLException e) {
            show(label, e.getErrorCode(), e.getSQLState());
        }
    }

    static void several_threads() throws Exception {
        try (Connection c = connect(""); PreparedStatement s = c.prepareStatement("INSERT INTO accounts VALUES (?, 100)")) {
            for (int i = 0; i < 4; i++) {
                s.setInt(1, base + 100 + i);
                s.addBatch();
            }
            s.executeBatch();
        }
        var pool = Executors.newFixedThreadPool(4);
        List<Future<Void>> all = new ArrayList<>();
        for (int n = 0; n < 4; n++) {
            all.add(pool.submit(transfers(n)));
        }
        for (Future<Void> one : all) {
            one.get();
        }
        pool.shutdown();
        try (Connection c = connect("")) {
            show("sum", read(c, "SELECT SUM(balance) FROM accounts WHERE id >= " + (base + 100) + " AND id < " + (base + 104)));
        }
    }

    static Callable<Void> transfers(int n) {
        return () -> {
            try (Connection c = connect("")) {
                c.setAutoCommit(false);
                PreparedStatement read = c.prepareStatement("SELECT id FROM accounts WHERE id IN (?, ?) ORDER BY id FOR UPDATE");
                PreparedStatement move = c.prepareStatement("UPDATE accounts SET balance = balance + ? WHERE id = ?");
                for (int i = 0; i < 20; i++) {
                    int[] pair = {base + 100 + n, base + 100 + (n + 1 + i % 3) % 4};
                    Arrays.sort(pair);
                    read.setInt(1, pair[0]);
                    read.setInt(2, pair[1]);
                    rows(read.executeQuery());
                    for (int side = 0; side < 2; side++) {
                        move.setInt(1, side == 0 ? -1 : 1);
                        move.setInt(2, pair[side]);
                        move.executeUpdate();
                    }
                    if (i % 4 == 0) {
                        c.rollback();
                    } else {
                        c.commit();
                    }
                }
            }
            return null;
        };
    }

    public static void main(String[] arguments) throws Exception {
        String[] passes = {"", "&rewriteBatchedStatements=true&useBulkStmts=true&useServerPrepStmts=true&cachePrepStmts=true"};
        for (String options : passes) {
            pass = options;
            try (Connection c = connect("")) {
                statements(c);
                batches(c);
                types(c);
                transactions(c);
                several(c);
                errors(c);
            }
            several_threads();
            base += 10_000;
        }
        System.out.println("passed");
    }
}
