-- The shop before it moves: the same rows on any server that runs this, for
-- every value follows from a row's number. Statements end with a semicolon at
-- a line's end.
SET NAMES utf8mb4;

CREATE TABLE customers (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  email VARCHAR(190) NOT NULL,
  name VARCHAR(120) NOT NULL,
  profile JSON NOT NULL,
  credit DECIMAL(12,2) NOT NULL DEFAULT 0.00,
  created_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  seen_at DATETIME(6) NULL,
  UNIQUE KEY email (email)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE items (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  sku CHAR(10) NOT NULL,
  category SMALLINT UNSIGNED NOT NULL,
  title VARCHAR(200) NOT NULL,
  description TEXT NOT NULL,
  price DECIMAL(10,2) NOT NULL,
  stock INT NOT NULL,
  attributes JSON NOT NULL,
  updated_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  UNIQUE KEY sku (sku),
  KEY category (category, price)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE orders (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  customer_id BIGINT UNSIGNED NOT NULL,
  status ENUM('new','paid','sent','cancelled') NOT NULL DEFAULT 'new',
  total DECIMAL(12,2) NOT NULL,
  note VARCHAR(500) NULL,
  placed_at DATETIME(6) NOT NULL,
  updated_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  KEY customer (customer_id, placed_at),
  CONSTRAINT orders_customer FOREIGN KEY (customer_id) REFERENCES customers (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE order_items (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  order_id BIGINT UNSIGNED NOT NULL,
  item_id BIGINT UNSIGNED NOT NULL,
  quantity INT UNSIGNED NOT NULL,
  price DECIMAL(10,2) NOT NULL,
  KEY order_id (order_id),
  KEY item_id (item_id),
  CONSTRAINT lines_order FOREIGN KEY (order_id) REFERENCES orders (id),
  CONSTRAINT lines_item FOREIGN KEY (item_id) REFERENCES items (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE payments (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  order_id BIGINT UNSIGNED NOT NULL,
  method ENUM('card','invoice','transfer') NOT NULL,
  amount DECIMAL(12,2) NOT NULL,
  details JSON NOT NULL,
  paid_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  KEY order_id (order_id),
  CONSTRAINT payments_order FOREIGN KEY (order_id) REFERENCES orders (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE carts (
  customer_id BIGINT UNSIGNED NOT NULL,
  item_id BIGINT UNSIGNED NOT NULL,
  quantity INT UNSIGNED NOT NULL,
  added_at DATETIME(6) NOT NULL,
  PRIMARY KEY (customer_id, item_id),
  KEY item_id (item_id),
  CONSTRAINT carts_customer FOREIGN KEY (customer_id) REFERENCES customers (id),
  CONSTRAINT carts_item FOREIGN KEY (item_id) REFERENCES items (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

INSERT INTO customers (id, email, name, profile, credit, created_at)
SELECT seq, CONCAT('c', seq, '@example.org'),
  CONCAT(ELT(1 + CRC32(seq) % 8, 'Åsa', 'Zoë', '美咲', 'Иван', 'José', 'Anna', 'Łukasz', 'नेहा'), ' ',
         ELT(1 + CRC32(seq * 7) % 8, 'Öberg', 'Müller', '田中', 'Петров', 'Muñoz', 'Smith', 'Nowak', 'शर्मा')),
  JSON_OBJECT('visits', CRC32(seq * 3) % 50, 'newsletter', seq % 3 = 0, 'emoji', ELT(1 + seq % 3, '🛒', '📦', '🎁')),
  (CRC32(seq * 11) % 100000) / 100,
  '2024-01-01' + INTERVAL seq * 1717 SECOND + INTERVAL CRC32(seq) % 1000000 MICROSECOND
FROM seq_1_to_20000;

INSERT INTO items (id, sku, category, title, description, price, stock, attributes, updated_at)
SELECT seq, CONCAT('SKU', LPAD(seq, 7, '0')), CRC32(seq) % 100,
  CONCAT(ELT(1 + seq % 6, 'Lamp', 'Stuhl', 'Café set', '茶碗', 'Полка', 'Rug'), ' №', seq),
  CONCAT('Nº ', seq, ': ', REPEAT(ELT(1 + seq % 4, 'solid oak, ', 'naïve glaze, ', 'лён, ', '手作り、'), 3 + seq % 9)),
  1 + (CRC32(seq * 5) % 50000) / 100, 1000000,
  JSON_OBJECT('colour', ELT(1 + seq % 5, 'rot', 'bleu', 'зелёный', '白', 'black'), 'sizes', JSON_ARRAY(seq % 7, seq % 11)),
  '2025-06-01' + INTERVAL seq SECOND
FROM seq_1_to_4000;

INSERT INTO orders (id, customer_id, status, total, note, placed_at, updated_at)
SELECT seq, 1 + CRC32(seq) % 20000, ELT(1 + seq % 4, 'new', 'paid', 'sent', 'cancelled'),
  (CRC32(seq * 13) % 90000) / 100, IF(seq % 9 = 0, CONCAT('bitte klingeln 🔔 ', seq), NULL),
  '2025-01-01' + INTERVAL seq * 701 SECOND, '2025-01-02' + INTERVAL seq * 701 SECOND
FROM seq_1_to_40000;

INSERT INTO order_items (id, order_id, item_id, quantity, price)
SELECT seq, 1 + (seq - 1) DIV 2, 1 + CRC32(seq * 17) % 4000, 1 + seq % 4, (CRC32(seq * 19) % 50000) / 100
FROM seq_1_to_80000;

INSERT INTO payments (id, order_id, method, amount, details, paid_at)
SELECT seq, seq, ELT(1 + seq % 3, 'card', 'invoice', 'transfer'), (CRC32(seq * 13) % 90000) / 100,
  JSON_OBJECT('ref', MD5(seq), 'tries', 1 + seq % 2), '2025-01-01' + INTERVAL seq * 703 SECOND
FROM seq_1_to_30000;

INSERT INTO carts (customer_id, item_id, quantity, added_at)
SELECT 1 + (seq * 3) % 20000, 1 + CRC32(seq) % 4000, 1 + seq % 3, '2025-10-01' + INTERVAL seq SECOND
FROM seq_1_to_6000;

ANALYZE TABLE customers, items, orders, order_items, payments, carts;
