// Has the conversations of test/t/246_sdk.pl with a model server by the official
// client of each format: a request, the turn that comes back, the results of its
// calls, and the answer, which it prints as a line of JSON, with what was used.
//
// usage: node sdk.mjs < asked.json
//   asked: a list of {api, url, key, model, stream, system, user, results, tools, schema,
//          max_tokens, temperature}
//
// The packages must be in a node_modules above this file.
import { readFileSync } from "node:fs";
import Anthropic from "@anthropic-ai/sdk";
import { GoogleGenAI } from "@google/genai";
import OpenAI from "openai";


async function openai(asked) {
  const { stream, tools, results, schema, temperature } = asked;
  const client = new OpenAI({ baseURL: asked.url, apiKey: asked.key, maxRetries: 0 });
  const messages = [
    { role: "system", content: asked.system },
    { role: "user", content: asked.user },
  ];
  const ask = async () => {
    const request = {
      model: asked.model, messages, max_tokens: asked.max_tokens, temperature,
      tools: tools.map(({ name, description, schema: parameters }) =>
        ({ type: "function", function: { name, description, parameters } })),
      response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema } },
    };
    return stream
      ? client.chat.completions.stream({ ...request, stream_options: { include_usage: true } }).finalChatCompletion()
      : client.chat.completions.create(request);
  };
  const turn = (await ask()).choices[0].message;
  messages.push(turn);
  turn.tool_calls.forEach((call, i) =>
    messages.push({ role: "tool", tool_call_id: call.id, content: results[i] }));
  const { choices, usage } = await ask();
  return [choices[0].message.content, usage.prompt_tokens, usage.completion_tokens];
}

async function responses(asked) {
  const { stream, tools, results, schema, temperature } = asked;
  const client = new OpenAI({ baseURL: asked.url, apiKey: asked.key, maxRetries: 0 });
  const input = [
    { role: "system", content: asked.system },
    { role: "user", content: asked.user },
  ];
  const ask = async () => {
    const request = {
      model: asked.model, input, store: false, include: ["reasoning.encrypted_content"],
      max_output_tokens: asked.max_tokens, temperature,
      tools: tools.map(({ name, description, schema: parameters }) =>
        ({ type: "function", name, description, parameters, strict: false })),
      text: { format: { type: "json_schema", name: "answer", strict: true, schema } },
    };
    return stream ? client.responses.stream(request).finalResponse() : client.responses.create(request);
  };
  const turn = (await ask()).output;
  input.push(...turn);
  turn.filter((item) => item.type === "function_call").forEach((call, i) =>
    input.push({ type: "function_call_output", call_id: call.call_id, output: results[i] }));
  const { output_text, usage } = await ask();
  return [output_text, usage.input_tokens, usage.output_tokens];
}

async function anthropic(asked) {
  const { stream, tools, results, schema, temperature } = asked;
  const client = new Anthropic({ baseURL: asked.url.replace(/\/v1$/, ""), apiKey: asked.key, maxRetries: 0 });
  const messages = [{ role: "user", content: asked.user }];
  const ask = async () => {
    const request = {
      model: asked.model, max_tokens: asked.max_tokens, temperature, system: asked.system, messages,
      tools: tools.map(({ name, description, schema: input_schema }) => ({ name, description, input_schema })),
      output_config: { format: { type: "json_schema", schema } },
    };
    return stream ? client.messages.stream(request).finalMessage() : client.messages.create(request);
  };
  const turn = await ask();
  messages.push({ role: turn.role, content: turn.content });
  messages.push({
    role: "user",
    content: turn.content.filter((block) => block.type === "tool_use").map((call, i) =>
      ({ type: "tool_result", tool_use_id: call.id, content: results[i] })),
  });
  const { content, usage } = await ask();
  return [content.map((block) => block.text ?? "").join(""), usage.input_tokens, usage.output_tokens];
}

// Its client leaves it to the caller to put the pieces of a turn together.
async function gemini(asked) {
  const { stream, tools, results, schema, temperature } = asked;
  const url = new URL(asked.url);
  const client = new GoogleGenAI({
    apiKey: asked.key, apiVersion: url.pathname.slice(1), httpOptions: { baseUrl: url.origin },
  });
  const contents = [{ role: "user", parts: [{ text: asked.user }] }];
  const ask = async () => {
    const request = {
      model: asked.model, contents,
      config: {
        systemInstruction: asked.system, maxOutputTokens: asked.max_tokens, temperature,
        tools: [{
          functionDeclarations: tools.map(({ name, description, schema: parametersJsonSchema }) =>
            ({ name, description, parametersJsonSchema })),
        }],
        responseMimeType: "application/json", responseJsonSchema: schema,
      },
    };
    if (!stream) {
      const reply = await client.models.generateContent(request);
      return [reply.candidates[0].content, reply.usageMetadata];
    }
    const parts = [];
    let usage;
    for await (const piece of await client.models.generateContentStream(request)) {
      for (const part of piece.candidates[0].content.parts) {
        const last = parts.at(-1);
        if (last?.text !== undefined && part.text !== undefined && last.thought === part.thought)
          last.text += part.text;
        else parts.push({ ...part });
      }
      usage = piece.usageMetadata;
    }
    return [{ role: "model", parts }, usage];
  };
  const [turn] = await ask();
  const calls = turn.parts.flatMap((part) => part.functionCall ?? []);
  contents.push(turn, {
    role: "user",
    parts: calls.map(({ name }, i) => ({ functionResponse: { name, response: { output: results[i] } } })),
  });
  const [answer, usage] = await ask();
  const tokens_out = usage.candidatesTokenCount + (usage.thoughtsTokenCount ?? 0);
  return [answer.parts.map((part) => part.text ?? "").join(""), usage.promptTokenCount, tokens_out];
}

const talks = { openai, "openai-responses": responses, anthropic, gemini };
for (const asked of JSON.parse(readFileSync(0))) {
  const [answer, tokens_in, tokens_out] = await talks[asked.api](asked);
  console.log(JSON.stringify({ answer, tokens_in, tokens_out }));
}
