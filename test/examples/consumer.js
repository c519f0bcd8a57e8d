#!/usr/bin/env node
// Reads the events of a consumer, each exactly once: what is done with them is in
// the transaction that acknowledges them.
//
//     PGDATABASE=app consumer.js NAME

const { Client } = require('pg');

const consumer = process.argv[2];

// What is to be done with an event, in this database.
async function handle(client, event) {
	await client.query('INSERT INTO handled (event_id, type) VALUES ($1, $2)',
		[event.event_id, event.type]);
}

// A batch is a transaction, until there are no more events.
async function drain(client) {
	for (;;) {
		await client.query('BEGIN');
		const { rows } = await client.query(
			'SELECT event_id, type, data FROM prometheus_poll($1)', [consumer]);
		for (const event of rows)
			await handle(client, event);
		await client.query('SELECT prometheus_ack($1)', [consumer]);
		await client.query('COMMIT');
		if (rows.length === 0)
			return;
	}
}

async function main() {
	const listener = new Client();
	const client = new Client();
	let hinted = () => {};

	await listener.connect();
	await client.connect();
	listener.on('notification', () => hinted());
	await listener.query('LISTEN prometheus_events');
	for (;;) {
		// A hint says that there may be something; one may be lost.
		const hint = new Promise((resolve) => {
			const timer = setTimeout(resolve, 30000);
			hinted = () => { clearTimeout(timer); resolve(); };
		});
		await drain(client);
		await hint;
	}
}

main().catch((error) => {
	console.error(error.message);
	process.exit(1);
});
