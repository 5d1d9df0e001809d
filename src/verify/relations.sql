-- Every table, materialized view and sequence that is not the system's, with an expression that
-- takes a row of it for 64 bits.
--
-- Each column has a hash of its own, seeded with its number; they are tied together by what asks. A
-- value is hashed as it is where the extended hash of its type takes all of it and equal values
-- have equal bytes. The traps: 64 bits are folded to 32, so that bigint takes -1 for 4294967295 and
-- the time types do alike, therefore their upper half is hashed, too (the second half of a hash is
-- seeded with the first; `date_bin` by 2^32 microseconds rounds the lower half away, which the
-- first hour of 4714 BC does not take); 0.0 and -0.0 are equal; a date that is not finite has no
-- number; the hash of an array takes its elements and not its bounds, therefore only one of a
-- single dimension that begins at 1 is hashed as it is. Of numeric, json and jsonb the text is
-- exact. All other types go through the function that sends them, gathered in one array, whose hash
-- is cheaper than a row's.
--
-- A type that cannot be sent becomes the text that its output function writes, in a record that
-- tells NULL from nothing: without a binary form itself or anywhere inside (`unsendable`), a domain
-- over an enum, which `enum_send` does not take, and refcursor. No cast to text is written: it may
-- be a function of the database's. Where the database is not in UTF8, whatever a type sends as text
-- would be converted for the client, which bytes without a place in it refuse; there every type
-- that has no hash of its own is hashed as text, in the database's own encoding.
--
-- A virtual generated column is stored nowhere, and its definition is compared; computing it may
-- fail. Tables of extensions belong to `cloud_admin` and hold rows of people's own
-- (`spatial_ref_sys`): they are read like others.
--
-- `$1` is a JSON array of names that are left out: a schema, a table or a column, quoted as
-- Postgres quotes them.
with recursive unsendable(oid) as (
  select oid from pg_type where typsend = 0
  union
  select x.oid from unsendable u cross join lateral (
    select typarray from pg_type where oid = u.oid and typarray <> 0
    union all select oid from pg_type where typbasetype = u.oid
    union all select c.reltype from pg_attribute m join pg_class c on c.oid = m.attrelid
      where m.atttypid = u.oid and m.attnum > 0 and not m.attisdropped and c.reltype <> 0
    union all select rngtypid from pg_range where rngsubtype = u.oid
    union all select rngmultitypid from pg_range where rngtypid = u.oid) as x(oid)),
r as (
  select c.oid, c.relkind, c.relispartition, c.relpersistence, c.relispopulated, c.relnamespace,
    n.nspname, format('%I.%I', n.nspname, c.relname) as name
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'neon', 'neon_migration')
    and c.relkind in ('r', 'm', 'S')),
ex as (select name from jsonb_array_elements_text($1::jsonb) as e(name)),
a as (
  select a.attrelid, a.attnum, quote_ident(a.attname) as name,
    exists (select from ex where ex.name = format('%s.%I', r.name, a.attname)) as is_left_out,
    case when t.typtype = 'e' then 'hashenumextended(%1$s, %2$s)'
      when t.oid in (16, 21, 23, 26) then 'hashint4extended(%1$s::int4, %2$s)'
      when t.oid = 20 then 'hashint8extended(%1$s >> 32, hashint8extended(%1$s, %2$s))'
      when t.oid in (25, 1043) and l.collisdeterministic then 'hashtextextended(%1$s, %2$s)'
      when t.oid = 2950 then 'uuid_hash_extended(%1$s, %2$s)'
      when t.oid in (700, 701) then
        'case when %1$s = 0 then hashtextextended(%1$s::text, %2$s) else hashfloat8extended(%1$s, %2$s) end'
      when t.oid = 1082 then 'case when isfinite(%1$s) then hashint4extended(%1$s - date ''2000-01-01'', %2$s) else hashtextextended(%1$s::text, %2$s) end'
      when getdatabaseencoding() <> 'UTF8' and t.oid not in (17, 1114,
        1184) then 'hashtextextended(concat(row(%1$s)), %2$s)'
      when e.typarray = t.oid and (e.oid in (16, 21, 23, 26, 2950) or e.typtype = 'e'
        or e.oid in (25, 1043) and l.collisdeterministic)
        then 'case when array_ndims(%1$s) > 1 or array_lower(%1$s, 1) <> 1 then hash_array_extended(ARRAY[%3$s(%1$s)], %2$s)'
          || ' else hash_array_extended(%1$s, %2$s) end'
      when t.oid in (114, 1700, 3802) then 'hashtextextended(%1$s::text, %2$s)'
      when t.oid = 1790 or t.typtype = 'd' and t.typsend = 'enum_send'::regproc or exists (select
        from unsendable u where u.oid = t.oid)
        then 'hashtextextended(concat(row(%1$s)), %2$s)'
      end as hash,
    case when t.oid in (1114, 1184) then
      '%1$s, case when %1$s < ''4714-11-24 00:53:22.37568 BC'' then case when %1$s = ''-infinity'' then %1$s end'
        || ' else date_bin(''4294.967296 s'', %1$s, ''2000-01-01'') end'
      when t.oid = 17 then '%1$s' else '%3$s(%1$s)' end as element,
    case when t.oid in (1114, 1184) then t.oid::int else 17 end as array_of,
      t.typsend::regproc::text as sender
  from pg_attribute a join r on r.oid = a.attrelid join pg_type t on t.oid = a.atttypid
  left join pg_type e on e.oid = t.typelem
  left join pg_collation l on l.oid = a.attcollation
  where a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'),
h as (
  select attrelid, 'coalesce(' || format(hash, name, attnum,
    sender) || ', ' || attnum || ')' as hash, attnum / 50 as part
  from a where hash is not null and not is_left_out
  union all
  select attrelid, format('hash_array_extended(ARRAY[%s], -%s)',
    string_agg(format(element, name, attnum, sender), ', ' order by attnum), array_of), -1
  from a where hash is null and not is_left_out group by attrelid, array_of),
p as (select attrelid, string_agg(hash, ' # ' order by hash) as hash from h
  group by attrelid, part),
x as (select attrelid, '(' || string_agg(hash, ') # (' order by hash) || ')' as hash from p
  group by attrelid),
o as (select attrelid, string_agg(name, ', ' order by attnum) as left_out from a where is_left_out
  group by attrelid),
k as (
  select i.indrelid, format('pg_catalog.jsonb_build_object(%s)::text',
    string_agg(format(case when getdatabaseencoding() <> 'UTF8'
          then '%L, encode(convert_to(concat(%I), getdatabaseencoding()), ''escape'')'
        -- What is not PostgreSQL's own type may have a cast to json, which would be called.
        when a.atttypid >= 16384 then '%L, concat(%I)' else '%L, %I' end, a.attname, a.attname),
          ', ' order by u.place)) as key
  from pg_index i cross join unnest(i.indkey) with ordinality as u(attnum, place)
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.attnum
  where i.indisprimary and u.place <= i.indnkeyatts and i.indrelid in (select oid from r)
    group by i.indrelid)
select r.relkind::text, r.name,
  coalesce(x.hash, '0'),
  case when r.relkind = 'S' then 0 else pg_table_size(r.oid) end::text,
  case when exists (select from ex where ex.name in (r.name, quote_ident(r.nspname))
      or ex.name in (select format('%I.%I', n.nspname, c.relname)
        from pg_partition_ancestors(r.oid) as p(relid)
        join pg_class c on c.oid = p.relid join pg_namespace n on n.oid = c.relnamespace)) then
          'skipped: excluded by the configuration'
    when r.relpersistence = 'u' then 'skipped: unlogged'
    when not r.relispopulated then 'skipped: not populated'
    when not has_schema_privilege(r.relnamespace, 'usage') then
      'not checked: the role may not use its schema'
    when r.relkind <> 'S' and not has_table_privilege(r.oid,
      'select') then 'not checked: the role may not read it'
    when r.relkind = 'S' and not has_sequence_privilege(r.oid,
      'select') then 'not checked: the role may not read it'
    when r.relkind = 'r' and row_security_active(r.oid) then
      'not checked: row-level security filters the role'
    else '' end,
  case when r.relkind = 'S' then (select 'down' from pg_sequence where seqrelid = r.oid
    and seqincrement < 0) else k.key end,
  case when r.relkind = 'S' then 0 else pg_relation_size(r.oid) / current_setting('block_size')::int
    end::text,
  o.left_out,
  -- What is judged as a whole: partitions come and go.
  case when r.relispartition then (select format('%I.%I', n.nspname, c.relname) from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = pg_partition_root(r.oid)) end
from r left join x on x.attrelid = r.oid left join o on o.attrelid = r.oid
  left join k on k.indrelid = r.oid
union all
select 'r', 'large objects',
  'hashint4extended(oid::int4, 1) # hash_array_extended(ARRAY[lo_get(oid)], 2)',
  pg_table_size('pg_largeobject')::text,
  case when bool_and(is_readable) then '' else format('not checked: the role may not read %s of %s',
    count(*) filter (where not is_readable), count(*)) end,
  'pg_catalog.jsonb_build_object(''oid'', oid)::text',
  (pg_relation_size('pg_largeobject_metadata') / current_setting('block_size')::int)::text, null,
    null
from (
  select pg_has_role(m.lomowner, 'usage') or exists (select from aclexplode(m.lomacl) as g
    where g.privilege_type = 'SELECT' and (g.grantee = 0
      or pg_has_role(g.grantee, 'usage'))) as is_readable
  from pg_largeobject_metadata m) as m
having count(*) > 0 and not exists (select from ex where name = 'large objects')
union all
select 'x', ex.name, null, null, null, null, null, null, null from ex
where ex.name <> 'large objects' and not exists (select from r
  where ex.name in (r.name, quote_ident(r.nspname)))
  and not exists (select from a join r on r.oid = a.attrelid
    where ex.name = r.name || '.' || a.name)
  and not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where ex.name = format('%I.%I', n.nspname, c.relname))
order by 2
