-- A script of real use for both mysql CLIs; its output is compared with the
-- one of a direct connection.
INSERT INTO cli_items (name, price) VALUES ('ä 🦀', 12.50);
SELECT LAST_INSERT_ID();
INSERT INTO cli_items (name, price) VALUES ('b', 1), ('c', 2), ('d', 3);
SELECT * FROM cli_items ORDER BY id;
UPDATE cli_items SET price = price + 1 WHERE name <> 'b';
DELETE FROM cli_items WHERE name = 'd';
SELECT ROW_COUNT();
BEGIN;
INSERT INTO cli_items (name, price) VALUES ('gone', 1);
ROLLBACK;
START TRANSACTION;
INSERT INTO cli_items (name, price) VALUES ('kept', 1);
SAVEPOINT s;
UPDATE cli_items SET price = 0 WHERE name = 'kept';
ROLLBACK TO s;
COMMIT;
INSERT INTO cli_types (id, big, d, at, bin, j) VALUES
  (1, 18446744073709551615, -1.5e10, '2024-02-29 12:30:15.123456', X'00FF0A27', '{"k": [1, "ü", null]}'),
  (2, NULL, NULL, NULL, NULL, NULL);
SELECT id, big, d, at, HEX(bin), j FROM cli_types ORDER BY id;
INSERT INTO cli_types (id) VALUES (1);
SELECT * FROM cli_nowhere;
SELEC;
SET sql_mode = '';
INSERT INTO cli_items (name, price) VALUES ('w', 1.239);
SHOW WARNINGS;
INSERT INTO cli_types (id, bin) VALUES (3, REPEAT('x', 3000000));
SELECT id, LENGTH(bin), MD5(bin) FROM cli_types WHERE id = 3;
PREPARE st FROM 'SELECT name FROM cli_items WHERE id = ?';
SET @id = 1;
EXECUTE st USING @id;
DEALLOCATE PREPARE st;
USE test;
SELECT DATABASE();
USE shop;
delimiter //
SELECT 1; SELECT 2//
delimiter ;
SELECT COUNT(*), SUM(price) FROM cli_items;
