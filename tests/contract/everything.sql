-- One object, or a few, of every kind that a database is compared by. Each statement ends at the
-- end of a line.
create role app login;
create role reader nologin;
grant reader to app;
create schema sales;
create type sales.mood as enum ('good', 'it''s bad');
create domain sales.email as text default 'x@y' not null check (value ~ '@');
create type sales.pair as (a int, b text);
create type sales.span as range (subtype = float8, subtype_diff = float8mi);
create collation sales.german (provider = icu, locale = 'de');
create sequence sales.ticket start 5 increment 2 cycle maxvalue 1000;
create table sales.customer (
  id bigint generated always as identity primary key, name text collate "C" not null,
    mail sales.email,
  feeling sales.mood default 'good', twice bigint generated always as (length(name) * 2) stored,
    place point, note jsonb);
create table sales."order ""x""" (id serial primary key,
  customer bigint references sales.customer (id), at timestamptz default now(),
  total numeric(10,2) constraint positive check (total >= 0));
alter table sales."order ""x""" add constraint late check (id < 1000000) not valid;
create index on sales.customer (lower(name)) where name <> '';
create table sales.part (day date, v int) partition by range (day);
create table sales.part_1 partition of sales.part for values
  from ('2026-01-01') to ('2027-01-01') with (fillfactor = 70);
create table sales.base (a int);
create table sales.child (extra int) inherits (sales.base);
create unlogged table sales.cache (k text);
create view sales.names with (security_barrier) as select name from sales.customer;
create materialized view sales.totals as select customer, sum(total) from sales."order ""x"""
  group by 1;
create function sales.add(a int, b int default 2) returns int language sql immutable return a + b;
create function sales.old(a int) returns int language plpgsql security definer set search_path = ''
  as 'begin return a; end';
create procedure sales.work() language plpgsql as 'begin null; end';
create aggregate sales.total(int) (sfunc = int4pl, stype = int, initcond = '0');
create function sales.touch() returns trigger language plpgsql as 'begin return new; end';
create trigger touched before update on sales.customer for each row execute function sales.touch();
alter table sales.customer disable trigger touched;
create rule nothing as on delete to sales.cache do instead nothing;
alter table sales.customer enable row level security;
alter table sales.customer force row level security;
create policy own on sales.customer for select to app using (name = current_user);
create policy "any" on sales.customer as restrictive using (true) with check (id > 0);
grant select (name), insert on sales.customer to app;
grant usage on schema sales to app;
grant execute on function sales.old(int) to reader;
alter default privileges in schema sales grant select on tables to reader;
alter role app set statement_timeout = '30s';
do $$ begin execute format('alter database %I set timezone = %L', current_database(),
  'UTC'); end $$;
create publication news for table sales.customer (id, name) where (id > 0);
create publication all_of_it for all tables;
create function sales.watch() returns event_trigger language plpgsql as 'begin null; end';
create event trigger watched on ddl_command_end when tag in ('CREATE TABLE') execute function
  sales.watch();
create foreign data wrapper elsewhere;
create server there foreign data wrapper elsewhere options (host 'secret.example.test');
create user mapping for app server there options (password 'hunter2');
create foreign table sales.far (a int options (column_name 'b')) server there options (table_name
  'x');
create trigger noted after insert on sales.base for each row execute function sales.touch('header',
  'secret-token');
create function sales.same(a sales.pair, b sales.pair) returns bool language sql immutable return
  (a).a = (b).a;
create operator sales.=== (leftarg = sales.pair, rightarg = sales.pair, function = sales.same);
create function sales.to_pair(a int) returns sales.pair language sql immutable return row(a,
  '')::sales.pair;
create cast (int as sales.pair) with function sales.to_pair(int) as assignment;
create operator class sales.ints for type int using btree as operator 1 <, operator 2 <=,
  operator 3 =, operator 4 >=, operator 5 >, function 1 btint4cmp(int, int);
create text search parser sales.parser (start = prsd_start, gettoken = prsd_nexttoken,
  end = prsd_end, lextypes = prsd_lextype);
create text search template sales.template (lexize = dsimple_lexize);
create text search dictionary sales.words (template = simple, stopwords = 'english');
create text search configuration sales.config (copy = simple);
alter text search configuration sales.config alter mapping for asciiword with sales.words;
create statistics sales.both (dependencies) on name, mail from sales.customer;
create conversion sales.conv for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
create access method heap2 type table handler heap_tableam_handler;
comment on table sales.customer is 'who pays';
comment on column sales.customer.name is 'as on the bill';
comment on schema sales is 'of the shop';
comment on role app is 'the application';
select lo_create(4711);
grant select on large object 4711 to reader;
