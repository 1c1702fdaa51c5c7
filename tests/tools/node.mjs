// The official SDKs for Node, unary and streaming, against the gateway of TOLLGATE_URL. Prints what each heard.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const url = process.env.TOLLGATE_URL;
const apiKey = process.env.TOLLGATE_KEY;
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey });
const anthropic = new Anthropic({ baseURL: url, apiKey });
const messages = [{ role: "user", content: "Say hello" }];
const model = "sandbox";

const heard = {};
heard.chat = (await openai.chat.completions.create({ model, messages })).choices[0].message.content;
heard.chatStream = "";
for await (const chunk of await openai.chat.completions.create({ model, messages, stream: true })) {
  heard.chatStream += chunk.choices[0]?.delta?.content ?? "";
}
heard.response = (await openai.responses.create({ model, input: "Say hello" })).output_text;
heard.message = (await anthropic.messages.create({ model, messages, max_tokens: 100 })).content[0].text;
heard.messageStream = await anthropic.messages.stream({ model, messages, max_tokens: 100 }).finalText();

const failures = { openai: undefined, anthropic: undefined };
await openai.chat.completions.create({ model: "nobody", messages }).catch((error) => (failures.openai = error.status));
await anthropic.messages
  .create({ model: "nobody", messages, max_tokens: 1 })
  .catch((error) => (failures.anthropic = error.status));
console.log(JSON.stringify({ heard, failures }));
