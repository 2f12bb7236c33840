-- The marketplace's orders, for the reports that join them with users.

CREATE TABLE orders (
    -- The digits of the ObjectId, so that either store finds the other's.
    id          char(24) PRIMARY KEY,
    number      text NOT NULL UNIQUE,
    merchant_id char(24) NOT NULL,
    -- Guests have none.
    customer_id bigint REFERENCES users (id),
    -- The oldest orders know no status: a field that a document does not have is the
    -- column's default.
    status      text NOT NULL DEFAULT 'unknown',
    currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    total       numeric(12, 2) NOT NULL,
    shipping    jsonb NOT NULL,
    coupon      text,
    placed_at   timestamptz NOT NULL
);

-- No foreign key to orders yet: an order that is placed while the lines are copied may have
-- its lines here before its row. The cleanup adds it.
CREATE TABLE order_lines (
    order_id   char(24) NOT NULL,
    line       integer NOT NULL,
    product_id integer NOT NULL,
    quantity   integer NOT NULL CHECK (quantity > 0),
    unit_price numeric(12, 2) NOT NULL,
    gift       jsonb,
    PRIMARY KEY (order_id, line)
);
