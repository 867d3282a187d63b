// What a sender needs of iyscheck, over the messages that `npm run generate` makes of the contract.
//
// It permits only what it understands: a reason that it does not know, an answer without its parts, one too few or one
// out of turn, and every error is a no. What fails while a server restarts is asked again until its time is over.

import { setTimeout as sleep } from "node:timers/promises";

import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { ConsentCheckService, ReasonSchema } from "./generated/iyscheck/v1/consent_check_pb.js";

const WINDOW = 2; // frames on their way: the server answers one while the next travels
const LAST_PERMITTING = 63;
const LOG_ID_BYTES = 16;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 500;

/** What is left of a call when its server goes away: gRPC's words, the library's for a lost connection, and Node's. */
const PASSING = new Set([Code.Unavailable, Code.Canceled, Code.Aborted]);
const CUT_OFF = new Set(["ERR_HTTP2_STREAM_ERROR", "ERR_STREAM_PREMATURE_CLOSE"]);

function passes(error) {
  return PASSING.has(ConnectError.from(error).code) || CUT_OFF.has(error.cause?.code);
}

/** The name of a reason; of one that this version does not know UNSPECIFIED. */
export function nameOf(reason) {
  return ReasonSchema.value[reason]?.localName ?? "UNSPECIFIED";
}

/** Whether a reason permits: only if it is known and its number is 1 to 63. */
export function permits(reason) {
  return reason >= 1 && reason <= LAST_PERMITTING && ReasonSchema.value[reason] !== undefined;
}

/** Connect to HOST:PORT. Gives the client and what ends its connection. */
export function connect(server) {
  const baseUrl = `http://${server}`;
  const sessionManager = new Http2SessionManager(baseUrl);
  const client = createClient(ConsentCheckService, createGrpcTransport({ baseUrl, sessionManager }));
  return { client, close: () => sessionManager.abort() };
}

/**
 * Ask one question (a message `Question`) and give { permitted, reason, evidence, asOf, validUntil }: reason by name,
 * times in milliseconds, evidence undefined without a record, asOf undefined without a watermark.
 * Throws a ConnectError if there is no answer within `timeoutMs`, all attempts included.
 */
export async function check(client, question, timeoutMs) {
  const end = performance.now() + timeoutMs;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    const left = Math.max(1, Math.ceil(end - performance.now())); // nought would be no limit
    try {
      return answerOf(await client.check({ question }, { timeoutMs: left }));
    } catch (error) {
      if (!passes(error) || performance.now() + pause >= end) throw error;
    }
    await sleep(pause);
  }
}

function answerOf({ reason, permitted, evidence, envelope }) {
  checkEnvelope(envelope);
  const agreed = permitted === permits(reason); // a permission needs both the reason and the flag
  return {
    permitted: permitted && agreed,
    reason: agreed || !permits(reason) ? nameOf(reason) : nameOf(0),
    evidence,
    asOf: envelope.asOf && timestampMs(envelope.asOf),
    validUntil: envelope.validUntil && timestampMs(envelope.validUntil),
  };
}

/**
 * Ask about any number of recipients over one stream. `frames` is an (async) iterable of arrays of addresses; `shared`
 * is what a `StreamCheckRequest` says of all of them. Gives { reasons, asOf } for each frame, in order: one number per
 * recipient, for `permits` and `nameOf`. Frames are read as there is room for them, so there may be no end of them.
 * If the stream breaks, what is unanswered is sent again on a new one. Throws a ConnectError if a frame is refused, or
 * no answer comes for `timeoutMs`: what has not been given by then is not answered.
 */
export async function* checkColumn(client, shared, frames, timeoutMs) {
  const source = (frames[Symbol.asyncIterator] ?? frames[Symbol.iterator]).call(frames);
  const owed = []; // sent and not answered, oldest first
  const patience = new AbortController();
  let timer;
  let stream = 0;
  let frameId = 0n;
  let reading; // the frame being read: whichever stream has room for it next, takes it
  let madeRoom = () => {};
  let handedOut = false; // while the caller works on a frame, the server is not late
  let pause = FIRST_PAUSE_MS;

  function watch() {
    clearTimeout(timer);
    if (owed.length === 0 || handedOut) return;
    const late = new ConnectError("The server did not answer in time.", Code.DeadlineExceeded);
    timer = setTimeout(() => patience.abort(late), timeoutMs);
  }

  async function launch(mine) {
    const { done, value: addresses } = await (reading ??= source.next());
    if (done || mine !== stream) return false;
    reading = undefined;
    owed.push({ ...shared, frameId: ++frameId, addresses });
    if (owed.length === 1) watch();
    return true;
  }

  async function* requests(mine) {
    yield* [...owed];
    for (;;) {
      while (owed.length >= WINDOW) await new Promise((resolve) => (madeRoom = resolve));
      if (!(await launch(mine))) return;
      yield owed.at(-1);
    }
  }

  try {
    for (;;) {
      const mine = ++stream;
      if (owed.length === 0 && !(await launch(mine))) return;
      try {
        for await (const reply of client.streamCheck(requests(mine), { signal: patience.signal })) {
          checkFrame(reply, owed[0]);
          owed.shift();
          pause = FIRST_PAUSE_MS;
          handedOut = true;
          watch();
          madeRoom();
          yield { reasons: reply.reasons, asOf: reply.envelope.asOf && timestampMs(reply.envelope.asOf) };
          handedOut = false;
          watch();
        }
        if (owed.length > 0) throw new ConnectError("The server ended the stream too early.", Code.DataLoss);
      } catch (error) {
        if (patience.signal.aborted) throw patience.signal.reason;
        if (!passes(error)) throw error;
        await sleep(pause);
        pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
      }
    }
  } finally {
    clearTimeout(timer);
    patience.abort(); // the stream, if the caller has had enough
  }
}

/**
 * Ask about recipients of many brands in one mixed frame. `groups` are arrays of addresses, each with what they share:
 * [{ shared, addresses }]. Gives { reasons, asOf } or { error } (a ConnectError) for each, in order; nobody of a group
 * with an error is answered. A server that knows no groups answers nobody: it gets a frame for each group then.
 * Throws a ConnectError if the frame is refused or fails. Groups, addresses: at most as GetServerInfo tells.
 */
export async function checkMixed(client, groups, timeoutMs) {
  const frame = {
    frameId: 1n,
    groups: groups.map(({ shared, addresses }) => ({ ...shared, recipients: addresses.length })),
    groupAddresses: groups.flatMap(({ addresses }) => addresses),
  };
  const reply = await onlyReply(client, frame, timeoutMs);
  if (reply.groups.length === 0) return await Promise.all(groups.map((group) => checkGroup(client, group, timeoutMs)));
  if (reply.groups.length !== groups.length) {
    throw new ConnectError(`${reply.groups.length} of ${groups.length} groups were answered.`, Code.DataLoss);
  }
  checkFrame(reply, { frameId: frame.frameId, addresses: frame.groupAddresses });
  let first = 0;
  return groups.map(({ addresses }, place) => {
    const reasons = reply.reasons.subarray(first, (first += addresses.length));
    const { case: outcome, value } = reply.groups[place].outcome;
    if (outcome === "result") return { reasons, asOf: value.asOf && timestampMs(value.asOf) };
    const why = value ? `${value.reason}: ${value.message}` : "The server sent neither an answer nor an error.";
    return { error: new ConnectError(why, Code.FailedPrecondition) };
  });
}

async function checkGroup(client, { shared, addresses }, timeoutMs) {
  try {
    let answered;
    for await (const answer of checkColumn(client, shared, [addresses], timeoutMs)) answered = answer;
    return answered;
  } catch (error) {
    return { error };
  }
}

async function onlyReply(client, frame, timeoutMs) {
  const requests = async function* () {
    yield frame;
  };
  const replies = [];
  for await (const reply of client.streamCheck(requests(), { timeoutMs })) replies.push(reply);
  if (replies.length === 1) return replies[0];
  throw new ConnectError(`The server sent ${replies.length} replies to one frame.`, Code.DataLoss);
}

/** Throw unless a reply answers, completely, the frame whose turn it is. */
function checkFrame({ frameId, reasons, envelope, error }, owed) {
  if (frameId !== owed?.frameId) {
    throw new ConnectError("The server answered a frame whose turn it was not.", Code.DataLoss);
  }
  if (error) throw new ConnectError(`${error.reason}: ${error.message}`, Code.FailedPrecondition);
  if (reasons.length !== owed.addresses.length) {
    throw new ConnectError(`${reasons.length} of ${owed.addresses.length} recipients were answered.`, Code.DataLoss);
  }
  checkEnvelope(envelope);
}

function checkEnvelope(envelope) {
  if (envelope?.position?.logId.length !== LOG_ID_BYTES) {
    throw new ConnectError("The server sent an answer without its position.", Code.DataLoss);
  }
}
