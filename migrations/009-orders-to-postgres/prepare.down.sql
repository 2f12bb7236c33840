-- Copies: nothing is lost.
DROP TABLE order_lines;
DROP TABLE orders;
