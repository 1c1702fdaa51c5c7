// The official SDKs for Node against the gateway of TOLLGATE_URL, in front of recorded answers. The file that is named
// holds a list of {api, model, stream}; of each, a line says what the SDK made of the answer: {final}, or {error}.
import { readFileSync } from "node:fs";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const url = process.env.TOLLGATE_URL;
const apiKey = process.env.TOLLGATE_KEY;
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Hi" }];

const ask = {
  chat: (model, stream) =>
    stream
      ? openai.chat.completions.stream({ model, messages }).finalChatCompletion()
      : openai.chat.completions.create({ model, messages }),
  responses: (model, stream) =>
    stream
      ? openai.responses.stream({ model, input: "Hi" }).finalResponse()
      : openai.responses.create({ model, input: "Hi" }),
  messages: (model, stream) =>
    stream
      ? anthropic.messages.stream({ model, messages, max_tokens: 50 }).finalMessage()
      : anthropic.messages.create({ model, messages, max_tokens: 50 }),
};

for (const { api, model, stream } of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  const line = await ask[api](model, stream).then(
    (final) => ({ final }),
    (error) => ({ error: error.constructor.name, status: error.status }),
  );
  console.log(JSON.stringify(line));
}
