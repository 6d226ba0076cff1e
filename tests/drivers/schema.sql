-- The tables and routines that scripts without tables of their own work on.
-- ROUTED is a database of the route; in SIDE lie those a script writes in a way
-- that only the active side gets, as LOAD DATA, which the follower brings over.
CREATE DATABASE ROUTED CHARACTER SET utf8mb4;
CREATE DATABASE SIDE CHARACTER SET utf8mb4;
GRANT ALL PRIVILEGES ON ROUTED.* TO 'app'@'%';
GRANT ALL PRIVILEGES ON SIDE.* TO 'app'@'%';
CREATE TABLE ROUTED.items (
  id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(60) NOT NULL,
  price DECIMAL(9,2) NOT NULL DEFAULT 0, note VARCHAR(200), KEY (name));
CREATE TABLE ROUTED.accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL);
CREATE TABLE ROUTED.types (
  id INT PRIMARY KEY, tiny TINYINT, big BIGINT UNSIGNED, dec30 DECIMAL(30,10), d DOUBLE,
  day DATE, t TIME(3), at DATETIME(6), ts TIMESTAMP(6) NULL DEFAULT NULL, y YEAR,
  s VARCHAR(200), txt LONGTEXT, bin LONGBLOB, bits BIT(9), e ENUM('small','big'), j JSON);
CREATE TABLE SIDE.loaded (id INT PRIMARY KEY, name VARCHAR(60), n DOUBLE);
CREATE PROCEDURE SIDE.two_sets(n INT) BEGIN SELECT n AS first; SELECT n + 1 AS second, 'ä' AS text; END;
CREATE PROCEDURE SIDE.outs(a INT, OUT b INT, INOUT c INT) BEGIN SET b = a * 2; SET c = c + a; END;
