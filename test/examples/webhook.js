#!/usr/bin/env node
// What a receiver of webhooks does with a request: it believes the body only if
// the reference library of Standard Webhooks, from npm, says that the signature
// is right.  A request is a line of the standard input: {headers, raw}.
//
//     webhook.js whsec_... < requests

const readline = require('readline');
const { Webhook } = require('standardwebhooks');

const webhook = new Webhook(process.argv[2]);

readline.createInterface({ input: process.stdin }).on('line', (line) => {
	const { headers, raw } = JSON.parse(line);

	try {
		const event = webhook.verify(raw, headers);
		console.log(`${event.type} ${JSON.stringify(event.data)}`);
	} catch (error) {
		console.log(`refused: ${error.message}`);
	}
});
