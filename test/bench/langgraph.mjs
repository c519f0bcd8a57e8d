// Has a conversation with LangGraph, whose checkpointer keeps it in PostgreSQL.
//
// usage: node langgraph.mjs FILE
//
// FILE is a JSON array of what the user says, turn by turn; the answer says the
// same again.  The server comes from PGHOST, PGPORT, PGUSER and PGDATABASE; the
// packages must be in a node_modules above this file.
import { readFileSync } from "node:fs";
import { AIMessage, HumanMessage } from "@langchain/core/messages";
import { END, MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import pg from "pg";

const pool = new pg.Pool({
  host: process.env.PGHOST, port: Number(process.env.PGPORT), user: process.env.PGUSER,
  database: process.env.PGDATABASE,
});
const checkpointer = new PostgresSaver(pool);
const echo = ({ messages }) => ({ messages: [new AIMessage(messages.at(-1).content)] });
const graph = new StateGraph(MessagesAnnotation)
  .addNode("echo", echo).addEdge(START, "echo").addEdge("echo", END)
  .compile({ checkpointer });
const thread = { configurable: { thread_id: "conversation" } };

await checkpointer.setup();
for (const text of JSON.parse(readFileSync(process.argv[2], "utf8")))
  await graph.invoke({ messages: [new HumanMessage(text)] }, thread);
const { values } = await graph.getState(thread);
console.log(values.messages.length);
await pool.end();
