// Drains no-op jobs with a queue from npm, twice, and prints the jobs per
// second of the second time, from the first job's body to the last one's.
//
// usage: node peers.mjs graphile|graphile-batched|pg-boss COUNT
//
// The server comes from PGHOST, PGPORT, PGUSER and PGDATABASE; the packages
// must be in a node_modules above this file.
import * as graphile from "graphile-worker";
import { PgBoss } from "pg-boss";
import pg from "pg";

const AT_ONCE = 16;
const [system, countText] = process.argv.slice(2);
const count = Number(countText);
const connectionString =
  `postgres://${process.env.PGUSER}@/${process.env.PGDATABASE}` +
  `?host=${encodeURIComponent(process.env.PGHOST)}&port=${process.env.PGPORT}`;
const quiet = new graphile.Logger(() => () => {});

// Counts bodies; resolves to the rate when all have run.
function counter() {
  let first = 0;
  let done = 0;
  let finish;
  const rate = new Promise((resolve) => (finish = resolve));
  const run = (n) => {
    if (done === 0) first = performance.now();
    done += n;
    if (done === count) finish(((count - 1) * 1000) / (performance.now() - first));
    if (done > count) throw new Error("a job was run twice");
  };
  return { run, rate };
}

async function graphileDrain(batched) {
  const pool = new pg.Pool({ connectionString, max: AT_ONCE + 4 });
  pool.on("error", (error) => { throw error; });
  pool.on("connect", (client) => client.on("error", (error) => { throw error; }));
  const { run, rate } = counter();
  const preset = batched ? { worker: { localQueue: { size: 500 }, completeJobBatchDelay: 0 } } : {};

  await graphile.runMigrations({ pgPool: pool, logger: quiet });
  await pool.query(
    "SELECT graphile_worker.add_job('noop', json_build_object('n', n)) FROM generate_series(1, $1::int) AS n",
    [count]);
  const runner = await graphile.run({
    pgPool: pool, logger: quiet, concurrency: AT_ONCE, noHandleSignals: true, pollInterval: 100, preset,
    taskList: { noop: async () => run(1) },
  });
  const result = await rate;
  await runner.stop();
  await pool.end();
  return result;
}

async function pgBossDrain() {
  const boss = new PgBoss({ connectionString, supervise: false, schedule: false });
  const { run, rate } = counter();

  boss.on("error", (error) => { throw error; });
  await boss.start();
  await boss.createQueue("noop");
  for (let n = 0; n < count; n += 1000)
    await boss.insert("noop", Array.from({ length: Math.min(1000, count - n) }, (_, i) => ({ data: { n: n + i } })));
  await boss.work("noop",
    { batchSize: 100, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5, localConcurrency: 4 },
    async (jobs) => run(jobs.length));
  const result = await rate;
  await boss.stop({ graceful: true });
  return result;
}

const drains = {
  "graphile": () => graphileDrain(false),
  "graphile-batched": () => graphileDrain(true),
  "pg-boss": pgBossDrain,
};

await drains[system]();
console.log(await drains[system]());
process.exit(0);
