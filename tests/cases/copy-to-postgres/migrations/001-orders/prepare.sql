CREATE TABLE orders (
    id text PRIMARY KEY, number text NOT NULL UNIQUE, status text NOT NULL DEFAULT 'unknown',
    total numeric(12, 2) NOT NULL, placed_at timestamptz NOT NULL
);
CREATE TABLE lines (
    order_id text REFERENCES orders (id), line int, sku text NOT NULL, quantity int CHECK (quantity > 0),
    PRIMARY KEY (order_id, line)
);
