-- What there is under the name of the table.
--
-- $1 schema · $2 table
--
-- No row: nothing. One row: whether it is a table, and whether a crash leaves it alone.
SELECT relation.relkind = 'r' AS is_table, relation.relpersistence = 'p' AS is_logged
FROM pg_class AS relation JOIN pg_namespace AS namespace ON namespace.oid = relation.relnamespace
WHERE namespace.nspname = $1::name AND relation.relname = $2::name
