DROP TABLE settings, leftovers;
