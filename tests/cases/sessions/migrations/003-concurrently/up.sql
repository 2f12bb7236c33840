SET LOCAL search_path TO shop;
CREATE TABLE carts (id integer);
CREATE INDEX CONCURRENTLY settings_name ON public.settings (name);
CREATE TABLE back_in_public (id integer);
