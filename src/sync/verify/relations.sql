-- Every table, materialized view and sequence that is not the system's, with the expression that digests a row of it.
--
-- Exact columns are those whose equality is equality of bytes and whose extended hash takes all of them; all others go through the function that
-- sends their type, each by itself: one `record_send` of them all takes a quarter longer. `hashint8extended` folds its 64 bits to 32 and takes -1 for
-- 4294967295, so bigint and the times that are stored as one are sent. A type that cannot be sent is cast to text: without a binary form, an array or a
-- composite of such, a domain over an enum, which `enum_send` does not take, and refcursor. `$1` is a JSON array of names that are left out: a
-- schema, a table or a column, quoted as Postgres quotes them.
with r as (
  select c.oid, c.relkind, c.relpersistence, c.relispopulated, c.relnamespace, n.nspname, format('%I.%I', n.nspname, c.relname) as name
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'neon', 'neon_migration')
  and c.relowner not in (select oid from pg_roles where rolname = 'cloud_admin') and c.relkind in ('r', 'm', 'S')),
ex as (select name from jsonb_array_elements_text($1::jsonb) as e(name)),
a as (
  select a.attrelid, a.attnum, quote_ident(a.attname) as name,
    exists (select from ex where ex.name = format('%s.%I', r.name, a.attname)) as is_left_out,
    t.typtype = 'e' or (t.oid in (16, 17, 21, 23, 25, 26, 1043, 1082, 2950)
      and (a.attcollation = 0 or l.collisdeterministic)) as is_exact,
    t.typsend = 0 or t.oid = 1790 or (t.typcategory = 'A' and e.typsend = 0) or (t.typtype = 'd' and t.typsend = 'enum_send'::regproc)
      or exists (select from pg_type b join pg_type m on m.oid = b.typelem where b.oid = t.typbasetype and b.typcategory = 'A' and m.typsend = 0)
      or exists (select from pg_attribute m join pg_type mt on mt.oid = m.atttypid
        where m.attrelid = nullif(t.typrelid, 0) and m.attnum > 0 and not m.attisdropped and mt.typsend = 0) as is_text_only,
    t.typsend::regproc::text as sender
  from pg_attribute a join r on r.oid = a.attrelid join pg_type t on t.oid = a.atttypid
  left join pg_type e on e.oid = t.typelem
  left join pg_collation l on l.oid = a.attcollation
  where a.attnum > 0 and not a.attisdropped),
x as (
  select attrelid, string_agg(case when is_exact then name when is_text_only then name || '::text' else format('%s(%s)', sender, name) end, ', '
      order by attnum) filter (where not is_left_out) as columns,
    string_agg(name, ', ' order by attnum) filter (where is_left_out) as left_out
  from a group by attrelid),
k as (
  select i.indrelid, format('pg_catalog.jsonb_build_object(%s)::text',
    string_agg(format('%L, %I', a.attname, a.attname), ', ' order by u.place)) as key
  from pg_index i cross join unnest(i.indkey) with ordinality as u(attnum, place)
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.attnum
  where i.indisprimary and u.place <= i.indnkeyatts and i.indrelid in (select oid from r) group by i.indrelid)
select r.relkind::text, r.name,
  format('ROW(%s)', case when r.relkind <> 'S' then x.columns end),
  case when r.relkind = 'S' then 0 else pg_table_size(r.oid) end::text,
  case when exists (select from ex where ex.name in (r.name, quote_ident(r.nspname))
      or ex.name in (select format('%I.%I', n.nspname, c.relname) from pg_partition_ancestors(r.oid) as p(relid)
        join pg_class c on c.oid = p.relid join pg_namespace n on n.oid = c.relnamespace)) then 'skipped: excluded by the configuration'
    when r.relpersistence = 'u' then 'skipped: unlogged'
    when not r.relispopulated then 'skipped: not populated'
    when not has_schema_privilege(r.relnamespace, 'usage') then 'not checked: the role may not use its schema'
    when r.relkind <> 'S' and not has_table_privilege(r.oid, 'select') then 'not checked: the role may not read it'
    when r.relkind = 'S' and not has_sequence_privilege(r.oid, 'select') then 'not checked: the role may not read it'
    when r.relkind = 'r' and row_security_active(r.oid) then 'not checked: row-level security filters the role'
    else '' end,
  case when r.relkind = 'S' then (select 'down' from pg_sequence where seqrelid = r.oid and seqincrement < 0) else k.key end,
  case when r.relkind = 'S' then 0 else pg_relation_size(r.oid) / current_setting('block_size')::int end::text,
  x.left_out
from r left join x on x.attrelid = r.oid left join k on k.indrelid = r.oid
union all
select 'r', 'large objects', 'ROW(oid, pg_catalog.lo_get(oid))', pg_table_size('pg_largeobject')::text,
  case when bool_and(is_readable) then '' else format('not checked: the role may not read %s of %s', count(*) filter (where not is_readable), count(*)) end,
  'pg_catalog.jsonb_build_object(''oid'', oid)::text',
  (pg_relation_size('pg_largeobject_metadata') / current_setting('block_size')::int)::text, null
from (
  select pg_has_role(m.lomowner, 'usage') or exists (select from aclexplode(m.lomacl) as g
    where g.privilege_type = 'SELECT' and (g.grantee = 0 or pg_has_role(g.grantee, 'usage'))) as is_readable
  from pg_largeobject_metadata m) as m
having count(*) > 0 and not exists (select from ex where name = 'large objects')
union all
select 'x', ex.name, null, null, null, null, null, null from ex
where ex.name <> 'large objects' and not exists (select from r where ex.name in (r.name, quote_ident(r.nspname)))
  and not exists (select from a join r on r.oid = a.attrelid where ex.name = r.name || '.' || a.name)
  and not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where ex.name = format('%I.%I', n.nspname, c.relname))
order by 2
