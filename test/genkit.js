// A receiver of OTLP that others made (@genkit-ai/telemetry-server): it prints
// its port, and gives what it was sent as GET /api/traces/ID.
//
// usage: node genkit.js DIRECTORY    ends when its standard input closes
'use strict';
const net = require('net');
const { startTelemetryServer, LocalFileTraceStore, LocalFileLogStore } = require('@genkit-ai/telemetry-server');

const root = process.argv[2];
console.log = console.info = () => {};
process.stdin.resume().on('end', () => process.exit(0));

const free = net.createServer().listen(0, '127.0.0.1', () => {
	const { port } = free.address();
	free.close(async () => {
		const store = { storeRoot: root, indexRoot: root };
		await startTelemetryServer({ port, traceStore: new LocalFileTraceStore(store), logStore: new LocalFileLogStore(store) });
		for (;;) {
			try {
				await fetch(`http://127.0.0.1:${port}/api/__health`);
				break;
			} catch {
				await new Promise((again) => setTimeout(again, 10));
			}
		}
		process.stdout.write(`${port}\n`);
	});
});
