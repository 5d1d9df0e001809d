// Holds what is sent to Slack, Discord, Teams and PagerDuty against other people's reading of it: the types that each of them, or its clients, publish; the
// limits of Discord's builders; the reader of Adaptive Cards; and readers of Discord's and Slack's mark-up.
// Argument: a file with [{"channel": …, "name": …, "plain": {"subject": …, "text": …}, "body": …}].
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { EmbedBuilder } from "@discordjs/builders";
import { parse as parseDiscord } from "discord-markdown-parser";
import { NodeType, parse as parseSlack } from "slack-message-parser";
import ts from "typescript";

const AdaptiveCards = createRequire(import.meta.url)("adaptivecards/dist/adaptivecards.js");

const [file] = process.argv.slice(2);
const letters = JSON.parse(readFileSync(file, "utf8"));

// The type of a body, and where it is published.
const types = {
  slack: ["{ text: string; blocks: KnownBlock[] }", "KnownBlock", "@slack/types"],
  discord: ["RESTPostAPIWebhookWithTokenJSONBody", "RESTPostAPIWebhookWithTokenJSONBody", "discord-api-types/v10"],
  // The client leaves two out that the Events API documents: the name and the address of what monitors.
  pagerduty: ["EventPayloadV2 & { client?: string; client_url?: string }", "EventPayloadV2", "@pagerduty/pdjs/build/src/events"],
};

/// Returns what the compiler says of the bodies, as literals of their types: a property that is missing, unknown or of another type is an error.
function judgeTypes() {
  const name = fileURLToPath(new URL("judged.ts", import.meta.url));
  const imports = Object.values(types).map(([, type, module]) => `import type { ${type} } from "${module}";`);
  const typed = letters.filter((letter) => types[letter.channel]);
  const values = typed.map(({ channel, body }, index) => `export const body${index}: ${types[channel][0]} = ${JSON.stringify(body)};`);
  const source = [...imports, ...values].join("\n");
  const options = { noEmit: true, strict: true, skipLibCheck: true, types: [], module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext };
  const host = ts.createCompilerHost(options);
  const { fileExists, getSourceFile } = host;
  host.fileExists = (path) => path === name || fileExists(path);
  host.getSourceFile = (path, ...rest) => (path === name ? ts.createSourceFile(path, source, ts.ScriptTarget.ES2022) : getSourceFile(path, ...rest));
  const program = ts.createProgram([name], options, host);
  for (const fault of ts.getPreEmitDiagnostics(program)) {
    const line = fault.file && fault.start !== undefined ? fault.file.getLineAndCharacterOfPosition(fault.start).line - imports.length : 0;
    assert.fail(`${typed[line]?.channel} ${typed[line]?.name}: ${ts.flattenDiagnosticMessageText(fault.messageText, "\n").slice(0, 2000)}`);
  }
}

/// Returns the text of what Discord's mark-up was read as; it fails where that is anything but text and addresses.
function shown(nodes) {
  return nodes.map((node) => {
    if (node.type === "br") return "\n";
    if (node.type === "url") return node.target;
    if (node.type === "twemoji") return node.name;
    assert.equal(node.type, "text", `it is read as ${JSON.stringify(node)}`);
    return node.content;
  }).join("");
}

// Calls to everybody are read in any text; `allowed_mentions` makes them call nobody.
const withoutCalls = (text) => text.replaceAll(/@(everyone|here)/g, "$1");

const judges = {
  discord({ body, plain, isWhole }) {
    assert.deepEqual(body.allowed_mentions, { parse: [] });
    const [embed] = body.embeds;
    const builder = new EmbedBuilder();
    builder.setTitle(embed.title).setDescription(embed.description).setColor(embed.color).setFooter(embed.footer).addFields(embed.fields);
    if (embed.url) builder.setURL(embed.url);
    builder.setTimestamp(new Date(embed.timestamp));
    const told = shown(parseDiscord(withoutCalls(embed.description), "extended"));
    const whole = withoutCalls(plain.text);
    if (isWhole) assert.equal(shown(parseDiscord(withoutCalls(embed.title), "extended")), withoutCalls(plain.subject));
    if (isWhole) assert.equal(told.split("\n• ")[0], whole);
    else assert.ok(told.startsWith(whole.slice(0, 500)), `${told.slice(0, 500)} is not ${whole.slice(0, 500)}`);
  },
  slack({ body }) {
    const [context] = body.blocks.at(-1).elements;
    const calls = [NodeType.UserLink, NodeType.ChannelLink, NodeType.Command];
    const kinds = (node) => [node.type, ...(node.children ?? []).flatMap(kinds)];
    for (const text of [body.text, context.text]) {
      const read = kinds(parseSlack(text));
      assert.ok(!read.some((kind) => calls.includes(kind)), "it calls somebody");
    }
    assert.ok(parseSlack(context.text).children.every((node) => [NodeType.Text, NodeType.URL].includes(node.type)), context.text);
    // A notification shows the text alone: an address there would be a link that nobody wrote.
    assert.ok(!kinds(parseSlack(body.text)).includes(NodeType.URL), body.text);
    for (const block of body.blocks.slice(0, -1)) assert.equal(block.text.type, "plain_text");
  },
  teams({ body, plain, isWhole }) {
    const [{ contentType, content }] = body.attachments;
    assert.equal(contentType, "application/vnd.microsoft.card.adaptive");
    const card = new AdaptiveCards.AdaptiveCard();
    const context = new AdaptiveCards.SerializationContext(AdaptiveCards.Versions.v1_4);
    card.parse(content, context);
    const events = Array.from({ length: context.eventCount }, (_, index) => context.getEventAt(index).message);
    assert.deepEqual(events, []);
    assert.deepEqual(card.validateProperties().validationEvents.map((event) => event.message), []);
    const runs = (index) => card.getItemAt(index).getInlineAt(0).text;
    if (isWhole) assert.deepEqual([runs(0), runs(1)], [plain.subject, plain.text]);
  },
  pagerduty({ body }) {
    assert.ok(body.payload.summary.length <= 1024 && body.dedup_key.length <= 255);
    assert.ok(!Number.isNaN(Date.parse(body.payload.timestamp)));
  },
};

judgeTypes();
for (const letter of letters) {
  try {
    judges[letter.channel](letter);
  } catch (error) {
    error.message = `${letter.channel} ${letter.name}: ${error.message}`;
    throw error;
  }
}
console.log(`ok ${letters.length} letters`);
