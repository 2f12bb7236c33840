DROP TABLE back_in_public;
DROP INDEX CONCURRENTLY public.settings_name;
DROP TABLE shop.carts;
