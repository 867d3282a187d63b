// A gateway in front of a send queue: `node gateway.js --help`. README.md says how to set it up.

import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { parseArgs } from "node:util";

import { toJson } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";

import { check, checkColumn, checkMixed, connect, nameOf, permits } from "./client.js";
import {
  ChannelSchema,
  EvidenceSchema,
  MessageClassSchema,
  RecipientTypeSchema,
} from "./generated/iyscheck/v1/consent_check_pb.js";

const HELP = `Usage: node gateway.js check|stream|mixed --brand CODE [options] [FILE]

Reads recipients from FILE or standard input, one a line, and asks iyscheck whether a message may be sent to them.

  check   asks about one after the other; prints a line of JSON for each: reason, evidence, age of the data
  stream  asks in frames, two on their way at a time; prints one line of JSON: how many got which reason
  mixed   lines are BRAND<tab>RECIPIENT, all asked in one frame; prints a line of JSON for each

  --brand CODE           İYS brandCode of the sending brand; not for mixed
  --channel NAME         ARAMA, MESAJ or EPOSTA (MESAJ)
  --recipient-type NAME  BIREYSEL or TACIR (BIREYSEL)
  --message-class NAME   what you declare the message to be (COMMERCIAL)
  --server HOST:PORT     where iyscheck listens (127.0.0.1:50051)
  --timeout SECONDS      how long an answer may take, all attempts included (10)
  --frame N              stream: recipients in a frame, 1 to 10000 (10000)
  --verdicts FILE        stream: also write line number, send or skip, and reason of each recipient
  --help                 this text

Exit codes: 0 every recipient is permitted (check, mixed) or answered (stream), 1 one is denied (check, mixed),
2 an error: what has no answer must not be sent.
`;

const OPTIONS = {
  brand: { type: "string" },
  channel: { type: "string", default: "MESAJ" },
  "recipient-type": { type: "string", default: "BIREYSEL" },
  "message-class": { type: "string", default: "COMMERCIAL" },
  server: { type: "string", default: "127.0.0.1:50051" },
  timeout: { type: "string", default: "10" },
  frame: { type: "string", default: "10000" },
  verdicts: { type: "string" },
  help: { type: "boolean", default: false },
};

const MOST_BRAND_CODE = 2 ** 32 - 1;
const LONGEST_ADDRESS_BYTES = 512; // more is no address; 10,000 of them fit into a message
const MODES = { check: checkEach, stream: checkAll, mixed: checkTogether };
const MOST_BRANDS = 1_024; // groups of a frame

async function main() {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const [mode, file, ...surplus] = positionals;
  if (!Object.hasOwn(MODES, mode ?? "") || surplus.length > 0) throw new Error("say check or stream or mixed, and one FILE.");
  const shared = {
    brandCode: mode === "mixed" ? undefined : wholeNumber(values.brand, "brand", MOST_BRAND_CODE),
    channel: numberOf(ChannelSchema, values.channel, "channel"),
    recipientType: numberOf(RecipientTypeSchema, values["recipient-type"], "recipient-type"),
    messageClass: numberOf(MessageClassSchema, values["message-class"], "message-class"),
  };
  const settings = {
    timeoutMs: wholeNumber(values.timeout, "timeout", 86_400) * 1000,
    frame: wholeNumber(values.frame, "frame", 10_000),
    verdicts: values.verdicts,
  };
  const { client, close } = connect(values.server);
  const input = file === undefined || file === "-" ? process.stdin : createReadStream(file);
  try {
    return await MODES[mode](client, shared, recipients(input), settings);
  } finally {
    close();
    input.destroy();
  }
}

async function checkEach(client, shared, addresses, { timeoutMs }) {
  let line = 0;
  let denied = 0;
  for await (const address of addresses) {
    const question = { ...shared, recipient: { case: "address", value: address } };
    const { permitted, reason, evidence, asOf, validUntil } = await check(client, question, timeoutMs);
    denied += permitted ? 0 : 1;
    print({
      line: ++line,
      permitted, // if so: send, before validUntil
      reason,
      evidence: evidence ? toJson(EvidenceSchema, evidence) : null,
      ageSeconds: ageOf(asOf),
      validUntil: validUntil === undefined ? null : new Date(validUntil).toISOString(),
    });
  }
  if (line === 0) throw new Error("there was nobody to ask about.");
  return denied > 0 ? 1 : 0;
}

async function checkAll(client, shared, addresses, { timeoutMs, frame, verdicts }) {
  const file = verdicts === undefined ? undefined : await open(verdicts, "w", 0o600);
  const counts = new Map();
  let line = 0;
  let permitted = 0;
  let oldest = Infinity;
  try {
    for await (const { reasons, asOf } of checkColumn(client, shared, framesOf(addresses, frame), timeoutMs)) {
      let lines = "";
      for (const reason of reasons) {
        const name = nameOf(reason);
        counts.set(name, (counts.get(name) ?? 0) + 1);
        permitted += permits(reason) ? 1 : 0;
        lines += `${++line}\t${permits(reason) ? "send" : "skip"}\t${name}\n`;
      }
      await file?.appendFile(lines);
      oldest = Math.min(oldest, asOf ?? -Infinity);
    }
  } finally {
    await file?.close();
  }
  print({ recipients: line, permitted, reasons: Object.fromEntries(counts), ageSeconds: ageOf(oldest) });
  return 0;
}

async function checkTogether(client, shared, lines, { timeoutMs }) {
  const groups = new Map(); // by brand
  const places = [];
  for await (const text of lines) {
    const tab = text.indexOf("\t");
    const brandCode = wholeNumber(text.slice(0, Math.max(tab, 0)), "brand of each line", MOST_BRAND_CODE);
    const group = groups.get(brandCode) ?? { shared: { ...shared, brandCode }, addresses: [] };
    groups.set(brandCode, group);
    places.push({ brandCode, at: group.addresses.push(text.slice(tab + 1)) - 1 });
  }
  if (places.length === 0) throw new Error("there was nobody to ask about.");
  if (places.length > 10_000 || groups.size > MOST_BRANDS) throw new Error("that is more than fits into one frame.");
  const answers = await checkMixed(client, [...groups.values()], timeoutMs);
  const answerOf = new Map([...groups.keys()].map((brandCode, place) => [brandCode, answers[place]]));
  const exits = places.map(({ brandCode, at }, place) => {
    const { reasons, asOf, error } = answerOf.get(brandCode);
    const permitted = error === undefined && permits(reasons[at]);
    const said = error === undefined ? { reason: nameOf(reasons[at]) } : { error: error.rawMessage };
    print({ line: place + 1, brand: brandCode, permitted, ...said, ageSeconds: ageOf(asOf) });
    return error === undefined ? Number(!permitted) : 2;
  });
  return Math.max(...exits);
}

/** The lines of a stream of UTF-8. Of what is too long to be an address an empty text stays, which is denied. */
async function* recipients(input) {
  const clean = (line) => (Buffer.byteLength(line) > LONGEST_ADDRESS_BYTES ? "" : line.replace(/\r$/, ""));
  let rest = ""; // node:readline would also end lines at U+2028 and shift all that follow
  for await (const chunk of input.setEncoding("utf8")) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop();
    yield* lines.map(clean);
  }
  if (rest !== "") yield clean(rest);
}

async function* framesOf(addresses, size) {
  let frame = [];
  for await (const address of addresses) {
    frame.push(address);
    if (frame.length < size) continue;
    yield frame;
    frame = [];
  }
  if (frame.length > 0) yield frame;
}

/** Whole seconds since the time up to which all changes are in; null where there is none. */
function ageOf(asOf) {
  return Number.isFinite(asOf) ? Math.max(0, Math.floor((Date.now() - asOf) / 1000)) : null;
}

function numberOf(schema, name, option) {
  const found = schema.values.find((value) => value.number !== 0 && value.localName === name);
  if (found === undefined) throw new Error(`--${option} knows no ${name}.`);
  return found.number;
}

function wholeNumber(text, option, most) {
  const number = /^[0-9]+$/.test(text ?? "") ? Number(text) : 0;
  if (number < 1 || number > most) throw new Error(`--${option} needs a number from 1 to ${most}.`);
  return number;
}

function print(object) {
  process.stdout.write(`${JSON.stringify(object)}\n`);
}

try {
  process.exitCode = await main();
} catch (error) {
  const reason = error instanceof ConnectError ? `${Code[error.code]}: ${error.rawMessage}` : error.message;
  process.stderr.write(`error: ${reason}\n`);
  process.exitCode = 2;
}
