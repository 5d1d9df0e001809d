-- The doubles of tests/e2e/hostile.rs: a seed of the emulator, run as the owner of production.
-- @NAMES@ and @OPERATORS@ are JSON arrays of what our SQL names. Everything of its own is written
-- under a path of pg_catalog.
create schema trap;
create table trap.made(kind text, name text);
do $make$
declare
  item record; names text[] := array(select pg_catalog.json_array_elements_text($n$@NAMES@$n$));
  operators text[] := array(select pg_catalog.json_array_elements_text($o$@OPERATORS@$o$));
  body text := 'begin raise exception ''a double was called: %%'', $x$%s$x$; end';
begin
  perform set_config('search_path', 'pg_catalog, pg_temp', true);
  -- Functions with the arguments of those of the system; "any" is a text here, which is the better
  -- match for one.
  for item in select p.oid, p.proname, p.proretset, format_type(p.prorettype, null) as returns,
      coalesce((select string_agg(case when a.t = 2276 then 'text'
        else format_type(a.t, null) end, ', ' order by a.n)
        from unnest(p.proargtypes) with ordinality as a(t, n)), '') as arguments
    from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
      and p.proname = any (names)
  loop begin
    execute format('create function trap.%I(%s) returns %s%s language plpgsql as %L', item.proname,
      item.arguments,
      case when item.proretset then 'setof ' end, item.returns, format(body, item.proname));
    insert into trap.made values ('function', item.proname);
  exception when others then null; end; end loop;
  for item in select p.proname, n from pg_proc p cross join generate_series(1, 5) as n
    where p.pronamespace = 'pg_catalog'::regnamespace and p.provariadic = 2276
      and p.proname = any (names) group by 1, 2
  loop begin
    execute format('create function trap.%I(%s) returns text language plpgsql as %L', item.proname,
      (select string_agg('text', ', ') from generate_series(1, item.n)), format(body,
        item.proname));
    insert into trap.made values ('function', item.proname);
  exception when others then null; end; end loop;
  for item in select o.oprname, format_type(o.oprleft, null) as l, format_type(o.oprright,
    null) as r, format_type(o.oprresult, null) as v, o.oid
    from pg_operator o where o.oprnamespace = 'pg_catalog'::regnamespace
      and o.oprname = any (operators) and o.oprleft <> 0
  loop begin
    execute format('create function trap.operator_%s(%s, %s) returns %s language plpgsql as %L',
      item.oid, item.l, item.r, item.v,
      format(body, 'operator ' || item.oprname));
    execute format('create operator trap.%s (leftarg = %s, rightarg = %s, procedure = trap.operator_%s)', item.oprname, item.l, item.r, item.oid);
    insert into trap.made values ('operator', item.oprname);
  exception when others then null; end; end loop;
  execute format('create function trap.refuse() returns boolean language plpgsql as %L',
    format(body, 'a domain'));
  for item in select typname from pg_type where typnamespace = 'pg_catalog'::regnamespace
    and typname = any (names) and typtype = 'b' and typelem = 0
  loop begin
    execute format('create domain trap.%I as pg_catalog.%I check (trap.refuse())', item.typname,
      item.typname);
    insert into trap.made values ('domain', item.typname);
  exception when others then null; end; end loop;
  for item in select relname from pg_class where relnamespace = 'pg_catalog'::regnamespace
    and relkind in ('r', 'v') and relname = any (names)
  loop begin
    execute format('create view trap.%I as select c.* from pg_catalog.%I as c where trap.refuse()',
      item.relname, item.relname);
    insert into trap.made values ('relation', item.relname);
  exception when others then null; end; end loop;
end $make$;
commit;
-- Types whose values become text, JSON, a number or a time by functions of the database's.
create type public.pair as (a int, b text);
create type public.box_of_rights as (holder text, rights aclitem);
do $casts$ declare source text; target text; begin
  foreach source in array array['pair', 'box_of_rights'] loop
    foreach target in array array['text', 'varchar', 'json', 'jsonb', 'int4', 'timestamptz',
      'bytea', 'name'] loop
      execute format('create function public.%1$s_as_%2$s(public.%1$s) returns pg_catalog.%2$s language plpgsql as %3$L', source, target,
        'begin raise exception ''a double was called: a cast''; end');
      execute format('create cast (public.%1$s as pg_catalog.%2$s) with function public.%1$s_as_%2$s(public.%1$s) as %3$s', source, target,
        case source when 'pair' then 'assignment' else 'implicit' end);
    end loop; end loop; end $casts$;
create table public.keyed(k public.pair primary key, v public.box_of_rights,
  many public.box_of_rights[], inner_pair public.pair);
insert into public.keyed select row(g, 'x')::public.pair, row('app', null)::public.box_of_rights,
  array[row('a', null)::public.box_of_rights], null
  from generate_series(1, 5) g;
create table public.child(id int primary key, k public.pair references public.keyed);
insert into public.child values (1, row(1, 'x')::public.pair), (2, null);
create table public.news(id int primary key, at public.pair, seen timestamptz);
insert into public.news values (1, row(1, 'x')::public.pair, now());
create role app login password 'App-Password-1';
create table public.docs(id int primary key, org int not null); insert into public.docs values (1,
  1), (2, 2);
alter table public.docs enable row level security;
create policy by_org on public.docs using (org = nullif(current_setting('app.org', true), '')::int);
grant select on public.docs to app; grant usage on schema trap to public;
-- A check whose function has constants alone for arguments: where the database asks for it, the
-- planner calls it.
create function trap.as_planned(pg_catalog.int4) returns boolean immutable language plpgsql as
  'begin return true; end';
create table public.checked(id int primary key, constraint planned check (trap.as_planned(1)));
insert into public.checked values (1), (2);
create or replace function trap.as_planned(pg_catalog.int4) returns boolean immutable language
  plpgsql
  as 'begin raise exception ''a double was called: a check''; end';
do $ce$ begin execute pg_catalog.format('alter database %I set constraint_exclusion = on',
  pg_catalog.current_database()); end $ce$;
-- What production may hold of ours.
create schema firstlight;
create table firstlight.after_restore(run text primary key);
insert into firstlight.after_restore select to_char(d, 'YYYYMMDD')
  from generate_series(date '2026-11-01', date '2027-12-31', interval '1 day') d;
commit;
alter role neondb_owner set search_path = trap, public, pg_catalog;
do $path$ begin execute pg_catalog.format('alter database %I set search_path = trap, public, pg_catalog', pg_catalog.current_database()); end $path$;
