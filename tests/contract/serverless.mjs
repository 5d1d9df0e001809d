// Drives `POST /sql` with Neon's own driver. Arguments: the address of /sql, a connection string.
import assert from "node:assert/strict";
import { neon, neonConfig } from "@neondatabase/serverless";

const [address, uri] = process.argv.slice(2);
neonConfig.fetchEndpoint = address;
const sql = neon(uri);

const rows = await sql`select id, name from users where id = ${2}`;
assert.deepEqual(rows, [{ id: 2, name: "two" }]);

const full = await neon(uri, { fullResults: true, arrayMode: true }).query("select $1::int8 as big, $2::jsonb as doc, array[]::int[] as none", ["9007199254740993", { a: [1] }]);
assert.equal(full.fields[0].dataTypeID, 20);
assert.deepEqual(full.rows, [["9007199254740993", { a: [1] }, []]]);

const [before, after] = await sql.transaction([sql`select count(*)::int as n from users`, sql`select 2 as n`], { isolationLevel: "RepeatableRead", readOnly: true });
assert.deepEqual([before[0].n, after[0].n], [2, 2]);

await assert.rejects(sql`select * from nowhere`, (error) => error.code === "42P01" && error.position === "15" && error.routine === "parserOpenTable");

await assert.rejects(
  sql.transaction([sql`delete from users`], { isolationLevel: "RepeatableRead", readOnly: true }),
  (error) => error.code === "25006",
);
assert.equal((await sql`select count(*)::int as n from users`)[0].n, 2);
console.log("ok 5 checks");
