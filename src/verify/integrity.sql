-- What may be wrong with a database although every copy of it is equal: what was found, and the
-- statements that find out more.
--
-- A row is a kind, an object, a statement that returns a row for each defect, the bytes it reads,
-- and why it is not checked. Without a statement and a reason the object itself is the defect; the
-- object `#` counts those that were looked at.
with recursive ns as (
  select n.oid, n.nspname from pg_namespace n
  where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'neon', 'neon_migration')),
-- Not `pg_partition_tree`, which keeps a lock on each partition: thousands of them fill the
-- server's table of locks.
below(oid, leaf) as (
  select oid, oid from pg_class where relkind = 'p'
  union all select below.oid, i.inhrelid from pg_inherits i join below on i.inhparent = below.leaf),
rel as (
  select c.oid, c.relkind, format('%I.%I', ns.nspname, c.relname) as name,
    case when c.relkind = 'p' then (select sum(pg_table_size(leaf)) from below
      where below.oid = c.oid) else pg_table_size(c.oid) end as bytes,
    has_schema_privilege(ns.oid, 'usage') and case when c.relkind = 'S' then
      has_sequence_privilege(c.oid, 'select')
      when c.relkind in ('r', 'p', 'm') then has_table_privilege(c.oid, 'select')
        else true end as is_readable
  from pg_class c join ns on ns.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'm', 'S', 'i', 'I')
  -- What is unlogged cannot be read on a standby, and no backup holds it.
  and c.relpersistence = 'p'),
fk as (
  select k.oid, k.conname, f.name as referencing, p.name as referenced, f.bytes + p.bytes as bytes,
    case when f.relkind = 'p' then '' else 'only ' end as only_referencing,
      case when p.relkind = 'p' then '' else 'only ' end as only_referenced,
    case when not coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true) then 'it is not enforced'
      when coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false) then 'it is a PERIOD key'
      when not (f.is_readable and p.is_readable) then 'the role may not read it'
      -- It would run as the verifying role.
      when exists (select from unnest(k.conkey, k.confkey) as u(own, other)
          join pg_attribute ca on ca.attrelid = k.conrelid and ca.attnum = u.own
            or ca.attrelid = k.confrelid and ca.attnum = u.other
          join pg_cast c on c.castsource = ca.atttypid where c.castfunc >= 16384 and
            not exists (select from pg_depend d
            where d.classid = 'pg_cast'::regclass and d.objid = c.oid and d.deptype = 'e'))
        then 'comparing its columns may call a cast that the database defines' end as reason,
    (select string_agg(format('pk.%I%s operator(%I.%s) fk.%I%s%s', pa.attname,
        -- As PostgreSQL's own query does: without the cast another operator may be chosen.
        (select format('::%I.%I', tn.nspname, y.typname) from pg_type y
          join pg_namespace tn on tn.oid = y.typnamespace
          where y.oid = op.oprleft and op.oprleft <> pa.atttypid), opn.nspname, op.oprname,
            fa.attname,
        (select format('::%I.%I', tn.nspname, y.typname) from pg_type y
          join pg_namespace tn on tn.oid = y.typnamespace
          where y.oid = op.oprright and op.oprright <> fa.atttypid),
        (select format(' collate %I.%I', ln.nspname, l.collname) from pg_collation l
          join pg_namespace ln on ln.oid = l.collnamespace
          where l.oid = pa.attcollation and pa.attcollation <> fa.attcollation)), ' and '
            order by u.place)
      from unnest(k.conkey, k.confkey, k.conpfeqop) with ordinality as u(own, other, operator,
        place)
      join pg_attribute fa on fa.attrelid = k.conrelid and fa.attnum = u.own
      join pg_attribute pa on pa.attrelid = k.confrelid and pa.attnum = u.other
      join pg_operator op on op.oid = u.operator join pg_namespace opn on opn.oid = op.oprnamespace)
        as matches,
    (select string_agg(format('fk.%I is not null', fa.attname), case k.confmatchtype
      when 'f' then ' or ' else ' and ' end order by u.place)
      from unnest(k.conkey) with ordinality as u(own, place)
      join pg_attribute fa on fa.attrelid = k.conrelid and fa.attnum = u.own) as is_set,
    (select format('pk.%I', pa.attname) from pg_attribute pa where pa.attrelid = k.confrelid
      and pa.attnum = k.confkey[1]) as first_key,
    (select 'pg_catalog.jsonb_build_object(' || string_agg(format(case when getdatabaseencoding() <>
      'UTF8'
          then '%L, encode(convert_to(concat(fk.%I), getdatabaseencoding()), ''escape'')'
        when a.atttypid >= 16384 then '%L, concat(fk.%I)'
          else '%L, fk.%I' end, a.attname, a.attname), ', ' order by u.place) || ')::text'
      from pg_index i cross join unnest(i.indkey) with ordinality as u(attnum, place)
      join pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.attnum
      where i.indisprimary and i.indrelid = k.conrelid and u.place <= i.indnkeyatts) as key
  from pg_constraint k join rel f on f.oid = k.conrelid join rel p on p.oid = k.confrelid
  where k.contype = 'f' and k.conparentid = 0),
used as (
  -- Those of identity columns, and those that a default is the next value of and nothing else:
  -- others number something of their own.
  select d.objid as sequence, d.refobjid as relation, d.refobjsubid as attnum from pg_depend d
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
      and d.deptype = 'i' and d.refobjsubid > 0
  union select d.refobjid, ad.adrelid, ad.adnum from pg_depend d
    join pg_attrdef ad on d.classid = 'pg_attrdef'::regclass and d.objid = ad.oid
    where d.refclassid = 'pg_class'::regclass and pg_get_expr(ad.adbin,
      ad.adrelid) ~ '^nextval\(''.*''::regclass\)$'),
numbered as (
  select s.name as sequence, t.name || '.' || quote_ident(a.attname) as "column",
    quote_ident(a.attname) as attname,
    case when t.relkind = 'p' then '' else 'only ' end || t.name as relation, q.seqincrement,
    case when exists (select from pg_index i where i.indrelid = t.oid and i.indkey[0] = a.attnum
      and i.indisvalid and i.indpred is null) then 0
      else t.bytes end as bytes,
    case when q.seqcycle then 'it starts again by itself' when not (s.is_readable
      and t.is_readable) then 'the role may not read it' end as reason
  from used u join rel s on s.oid = u.sequence and s.relkind = 'S'
    join pg_sequence q on q.seqrelid = s.oid
  join rel t on t.oid = u.relation and t.relkind in ('r', 'p')
  join pg_attribute a on a.attrelid = t.oid and a.attnum = u.attnum
    and a.atttypid in (20, 21, 23, 1700) and not a.attisdropped),
idx as (
  select i.indexrelid, x.name, i.indisvalid and i.indisready and i.indislive as is_good, am.amname,
    pg_relation_size(x.oid) as bytes, x.relkind
  from pg_index i join rel x on x.oid = i.indexrelid join pg_class c on c.oid = x.oid
    join pg_am am on am.oid = c.relam),
amcheck as (
  select p.oid, format('%I.bt_index_check', n.nspname) as name from pg_extension e
    join pg_namespace n on n.oid = e.extnamespace
  join pg_proc p on p.pronamespace = n.oid and p.proname = 'bt_index_check' and p.pronargs = 1
  -- One that the extension has made, and nobody else.
  join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.refobjid = e.oid
    and d.deptype = 'e'
  where e.extname = 'amcheck')
select 'foreign_keys', format('%s.%I', referencing, conname),
  format('select count(*) over ()::text, %s from %s%s as fk left join %s%s as pk on %s where %s is null and (%s) limit 20', coalesce(key, 'null'),
    only_referencing, referencing, only_referenced, referenced, matches, first_key, is_set),
      bytes::text, reason
from fk
union all
select 'sequences', format('%s of %s', sequence, "column"),
  format('select s.last_value::text from %s as s, (select pg_catalog.%s(%s) as edge from %s) as t where t.edge %s case when s.is_called then s.last_value + %s else s.last_value end',
    sequence, case when seqincrement > 0 then 'max' else 'min' end, attname, relation,
      case when seqincrement > 0 then '>=' else '<=' end, seqincrement),
  bytes::text, reason
from numbered
union all
select 'indexes', name, null, '0', null from idx where not is_good
union all
select 'indexes', '#', null, count(*)::text, null from idx
union all
select 'constraints', format('%s.%I', coalesce(rel.name, nullif(k.conrelid, 0)::regclass::text,
  k.contypid::regtype::text), k.conname), null, '0', null
from pg_constraint k left join rel on rel.oid = k.conrelid join ns on ns.oid = k.connamespace
where not k.convalidated and coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
  and k.conparentid = 0
union all
select 'constraints', '#', null, count(*)::text, null from pg_constraint k
  join ns on ns.oid = k.connamespace
union all
select 'index_structure', i.name,
  format('select x from (select %s(%L::regclass)::text as x offset 0) as c where x <> ''''', a.name,
  i.indexrelid),
  i.bytes::text, case when not has_function_privilege(a.oid,
    'execute') then 'the role may not call bt_index_check' end
from idx i cross join amcheck a where i.amname = 'btree' and i.is_good and i.relkind = 'i'
union all
select 'index_structure', 'every index', null, '0', 'the extension amcheck is not installed' where
  not exists (select from amcheck)
order by 1, 2
