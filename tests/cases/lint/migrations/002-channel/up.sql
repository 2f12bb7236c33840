-- Where an order came from.
ALTER TABLE orders ADD COLUMN channel text;
UPDATE orders SET channel = 'web';
CREATE INDEX orders_channel
    ON orders (channel);
