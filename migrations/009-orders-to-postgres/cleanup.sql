-- In two statements: the first asks for a lock and looks at nothing, the second looks at
-- every line and lets others write meanwhile.
ALTER TABLE order_lines ADD CONSTRAINT order_lines_order
    FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE order_lines VALIDATE CONSTRAINT order_lines_order;
