-- Ein Kommentar mit Umlauten: äöü.
CREATE TABLE "größe" (
    id integer,
    wert text
);

INSERT INTO "größe" (id, wert)
VALUES
    (1, 'schön'),
    (2, 'grün'), (3, 7 + 'ü');
