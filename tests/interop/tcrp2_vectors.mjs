// A second implementation of what docs/tcrp2.md says of records, keys, sealed datagrams, frames and the replay
// window, written from that page and from nothing else. It checks tests/vectors/sealed.json in both directions
// (it makes what is there, and reads it) and exits with 1 at the first difference.
//
//     node tests/interop/tcrp2_vectors.mjs tests/vectors/sealed.json
//
// Only what comes with node is used. Packet numbers and integers of frames are BigInt, since they may exceed 2^53.

import { createCipheriv, createDecipheriv, createHash, createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

// --- checking -------------------------------------------------------------------------------------------------

let checked = 0;

function same(what, got, expected) {
  checked += 1;
  const [ours, theirs] = [JSON.stringify(got), JSON.stringify(expected)];
  if (ours !== theirs) {
    console.error(`${what}: ${ours}, the vectors say ${theirs}`);
    process.exit(1);
  }
}

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const unhex = (text) => Buffer.from(text, "hex");

// --- Records --------------------------------------------------------------------------------------------------

const HEADER_SIZE = 32;

function readRecord(whole) {
  const size = BigInt(`0x${hex(whole.subarray(3, HEADER_SIZE))}`);
  return {
    roomSize: whole[0],
    operation: whole[1],
    stage: whole[2],
    isWhole: BigInt(HEADER_SIZE) + size === BigInt(whole.length),
    payload: JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(whole.subarray(HEADER_SIZE))),
  };
}

// --- Keys -----------------------------------------------------------------------------------------------------

const sha256 = (...parts) => createHash("sha256").update(Buffer.concat(parts)).digest();
const hmac = (key, ...parts) => createHmac("sha256", key).update(Buffer.concat(parts)).digest();
const expand = (secret, info, size) => hmac(secret, Buffer.from(info, "ascii"), Buffer.of(1)).subarray(0, size);

const transcript = (hello, answer, serverKey) => sha256(Buffer.from("tcrp2"), hello, answer, sha256(serverKey));
const extract = (th, clientSecret, serverSecret) => hmac(th, clientSecret, serverSecret);
const firstSecret = (prk, direction) => expand(prk, `tcrp2 ${direction} secret`, 32);
const nextSecret = (secret) => expand(secret, "tcrp2 next", 32);
const keyOf = (secret) => expand(secret, "tcrp2 key", 32);
const ivOf = (secret) => expand(secret, "tcrp2 iv", 12);
const epochOf = (number) => Number(number >> 20n);

function bytesOf(number, size) {
  return unhex(number.toString(16).padStart(2 * size, "0"));
}

function nonceOf(iv, number) {
  const counter = Buffer.concat([Buffer.alloc(6), bytesOf(number, 6)]);
  return Buffer.from(iv.map((byte, at) => byte ^ counter[at]));
}

// --- The sealed datagram --------------------------------------------------------------------------------------

const DATAGRAM_HEADER_SIZE = 16;
const TAG_SIZE = 16;
const SEALED_MAX = 1200;
const READ_MAX = 1500;

function headerOf(connection, number) {
  return Buffer.concat([Buffer.of(0, 14), connection, bytesOf(number, 6)]);
}

function seal(secret, connection, number, frames) {
  const header = headerOf(connection, number);
  const cipher = createCipheriv("aes-256-gcm", keyOf(secret), nonceOf(ivOf(secret), number), {
    authTagLength: TAG_SIZE,
  });
  cipher.setAAD(header);
  return Buffer.concat([header, cipher.update(frames), cipher.final(), cipher.getAuthTag()]);
}

// Returns the frames, or null for what is dropped.
function open(secretOf, connection, datagram) {
  if (datagram.length > READ_MAX || datagram.length < DATAGRAM_HEADER_SIZE + 1 + TAG_SIZE) return null;
  if (datagram[0] !== 0 || datagram[1] !== 14) return null;
  if (!datagram.subarray(2, 10).equals(connection)) return null;
  const number = BigInt(`0x${hex(datagram.subarray(10, 16))}`);
  const secret = secretOf(number);
  const decipher = createDecipheriv("aes-256-gcm", keyOf(secret), nonceOf(ivOf(secret), number), {
    authTagLength: TAG_SIZE,
  });
  decipher.setAAD(datagram.subarray(0, DATAGRAM_HEADER_SIZE));
  decipher.setAuthTag(datagram.subarray(-TAG_SIZE));
  try {
    const sealed = datagram.subarray(DATAGRAM_HEADER_SIZE, -TAG_SIZE);
    return Buffer.concat([decipher.update(sealed), decipher.final()]);
  } catch {
    return null;
  }
}

class ReplayWindow {
  largest = -1n;
  opened = new Set();

  admits(number) {
    if (number > this.largest) return true;
    return this.largest - number < 1024n && !this.opened.has(number);
  }

  note(number) {
    this.opened.add(number);
    if (number > this.largest) this.largest = number;
    for (const one of this.opened) if (this.largest - one >= 1024n) this.opened.delete(one);
  }
}

// --- Frames ---------------------------------------------------------------------------------------------------

// [type, name, fields]; a field is [name, size], and one whose size is a name has as many bytes as that field says.
const FRAMES = [
  [0x01, "PING", []],
  [0x02, "ACK", [["largest", 6], ["delay", 2], ["bitmap_size", 1], ["bitmap", "bitmap_size"]]],
  [0x03, "PUBLISH", [["room", 4], ["message_id", 8], ["kind", 1], ["body_size", 2], ["body", "body_size"]]],
  [0x04, "PUBLISHED", [["room", 4], ["message_id", 8], ["status", 1], ["seq", 8], ["time_ms", 8]]],
  [
    0x05,
    "MESSAGE",
    [
      ["room", 4],
      ["seq", 8],
      ["sender", 4],
      ["message_id", 8],
      ["time_ms", 8],
      ["kind", 1],
      ["flags", 1],
      ["body_size", 2],
      ["body", "body_size"],
    ],
  ],
  [0x06, "RECEIVED", [["room", 4], ["up_to", 8], ["credit", 2]]],
  [0x08, "GAP", [["room", 4], ["first", 8], ["last", 8], ["reason", 1]]],
  [0x09, "HEAD", [["room", 4], ["head", 8], ["oldest", 8]]],
  [0x0a, "CHALLENGE", [["data", 8]]],
  [0x0b, "RESPONSE", [["data", 8]]],
  [0x0d, "CLOSE", [["code", 2], ["reason_size", 1], ["reason", "reason_size"]]],
  [
    0x0e,
    "SIGNAL",
    [["room", 4], ["sender", 4], ["key", 4], ["counter", 8], ["body_size", 2], ["body", "body_size"]],
  ],
  [0x0f, "PONG", []],
];
const BY_TYPE = new Map(FRAMES.map(([type, name, fields]) => [type, { name, fields }]));
const BY_NAME = new Map(FRAMES.map(([type, name, fields]) => [name, { type, fields }]));
const BYTE_FIELDS = new Set(["data", "bitmap", "body", "reason"]); // of these, GAP's reason is a number
const FRAMES_MAX = 64;
const MESSAGE_ID_MAX = 2n ** 53n - 1n;
const BODY_MAX = 61440;
const BITMAP_MAX = 16;

const isBytes = (name, size) => typeof size === "string" || (BYTE_FIELDS.has(name) && size === 8);

class Refused extends Error {}

// Returns the frames that a datagram holds. Throws Refused.
function readFrames(data) {
  const frames = [];
  let at = 0;
  while (at < data.length) {
    if (frames.length === FRAMES_MAX) throw new Refused("too many frames");
    if (data[at] === 0) {
      if (data.subarray(at).some((byte) => byte !== 0)) throw new Refused("something behind padding");
      frames.push({ type: "PADDING", size: BigInt(data.length - at) });
      break;
    }
    const known = BY_TYPE.get(data[at]);
    if (known === undefined) throw new Refused("unknown type");
    at += 1;
    const frame = { type: known.name };
    for (const [name, given] of known.fields) {
      const size = typeof given === "string" ? Number(frame[given]) : given;
      if (at + size > data.length) throw new Refused("cut short");
      const bytes = data.subarray(at, at + size);
      frame[name] = isBytes(name, given) ? bytes : BigInt(`0x${hex(bytes)}`);
      at += size;
    }
    judge(frame);
    frames.push(frame);
  }
  return frames;
}

function judge(frame) {
  if (frame.message_id > MESSAGE_ID_MAX) throw new Refused("message id");
  if (frame.type !== "SIGNAL" && frame.body?.length > BODY_MAX) throw new Refused("body");
  if (frame.type === "GAP" && frame.first > frame.last) throw new Refused("gap");
  if (frame.type === "ACK") {
    if (frame.bitmap.length > BITMAP_MAX || frame.bitmap.at(-1) === 0) throw new Refused("bitmap");
    if (acknowledged(frame).some((number) => number < 0n)) throw new Refused("below 0");
  }
}

function acknowledged(ack) {
  const numbers = [ack.largest];
  for (let bit = 0; bit < 8 * ack.bitmap.length; bit += 1) {
    if ((ack.bitmap[Math.floor(bit / 8)] >> (bit % 8)) & 1) numbers.push(ack.largest - 1n - BigInt(bit));
  }
  return numbers;
}

function writeFrames(frames) {
  const pieces = frames.map((frame) => {
    if (frame.type === "PADDING") return Buffer.alloc(Number(frame.size));
    const { type, fields } = BY_NAME.get(frame.type);
    const sizes = new Map(fields.filter(([, size]) => typeof size === "string").map(([name, size]) => [size, name]));
    const written = fields.map(([name, size]) => {
      if (isBytes(name, size)) return frame[name];
      return bytesOf(sizes.has(name) ? BigInt(frame[sizes.get(name)].length) : frame[name], size);
    });
    return Buffer.concat([Buffer.of(type), ...written]);
  });
  return Buffer.concat(pieces);
}

// Spells a frame as the vectors do: sizes left out, integers as decimal digits, bytes as hex.
function spelled(frame) {
  const said = {};
  for (const [name, value] of Object.entries(frame)) {
    if (name === "size" || !name.endsWith("_size")) {
      said[name] = typeof value === "bigint" ? value.toString() : Buffer.isBuffer(value) ? hex(value) : value;
    }
  }
  if (frame.type === "ACK") said.acknowledges = acknowledged(frame).map(String);
  return said;
}

// --- the vectors ----------------------------------------------------------------------------------------------

function checkHello(session) {
  const [hello, answer] = [readRecord(unhex(session.hello)), readRecord(unhex(session.answer))];
  for (const [name, record, stage] of [
    ["HELLO.0", hello, 0],
    ["HELLO.1", answer, 1],
  ]) {
    same(`${name}: room size`, record.roomSize, 0);
    same(`${name}: operation`, record.operation, 0x10);
    same(`${name}: stage`, record.stage, stage);
    same(`${name}: payload size`, record.isWhole, true);
  }
  same("HELLO.0 offers version 2", hello.payload.versions.includes(2), true);
  same("HELLO.0 offers suite 1", hello.payload.suites.includes(1), true);
  same("HELLO.1 chooses", [answer.payload.version, answer.payload.suite], [2, 1]);
  same("HELLO.0: secret", hello.payload.secret, session.client_secret);
  same("HELLO.1: secret", answer.payload.secret, session.server_secret);
  return hello.payload.connection;
}

function checkKeys(session) {
  const th = transcript(unhex(session.hello), unhex(session.answer), unhex(session.server_key));
  same("th", hex(th), session.th);
  const prk = extract(th, unhex(session.client_secret), unhex(session.server_secret));
  same("prk", hex(prk), session.prk);
  return prk;
}

function checkEpoch(where, secret, epoch) {
  same(`${where}: secret`, hex(secret), epoch.secret);
  same(`${where}: key`, hex(keyOf(secret)), epoch.key);
  same(`${where}: iv`, hex(ivOf(secret)), epoch.iv);
}

function checkPacket(where, secretOf, connection, packet) {
  const number = BigInt(packet.number);
  const secret = secretOf(number);
  const frames = unhex(packet.frames);
  const datagram = unhex(packet.datagram);
  same(`${where}: epoch`, epochOf(number), packet.epoch);
  same(`${where}: nonce`, hex(nonceOf(ivOf(secret), number)), packet.nonce);
  same(`${where}: header`, hex(headerOf(connection, number)), packet.header);
  same(`${where}: sealed`, hex(seal(secret, connection, number, frames)), packet.datagram);
  same(`${where}: size`, datagram.length <= SEALED_MAX, true);
  same(`${where}: opened`, hex(open(secretOf, connection, datagram) ?? ""), packet.frames);
  same(`${where}: frames`, hex(writeFrames(readFrames(frames))), packet.frames);
  for (let bit = 0; bit < 8 * datagram.length; bit += 7) {
    const forged = Buffer.from(datagram);
    forged[Math.floor(bit / 8)] ^= 1 << (bit % 8);
    const opened = open(() => secret, connection, forged);
    same(`${where}: with bit ${bit} changed`, opened, null);
  }
}

function checkDirection(direction, prk, vectors) {
  const secrets = [firstSecret(prk, direction)];
  while (secrets.length < vectors.epochs.length) secrets.push(nextSecret(secrets.at(-1)));
  vectors.epochs.forEach((epoch, number) => {
    same(`${direction}: epoch`, number, epoch.epoch);
    checkEpoch(`${direction}, epoch ${number}`, secrets[number], epoch);
  });
  const connection = unhex(vectors.connection);
  for (const packet of vectors.packets) {
    checkPacket(`${direction}, packet ${packet.number}`, (number) => secrets[epochOf(number)], connection, packet);
  }
}

function checkFrames(vectors) {
  for (const { bytes, frames } of vectors.frames) {
    const read = readFrames(unhex(bytes));
    same(`frames ${bytes}`, read.map(spelled), frames);
    same(`frames ${bytes}, written`, hex(writeFrames(read)), bytes);
  }
  for (const { bytes, why } of vectors.refused) {
    let refused = false;
    try {
      readFrames(unhex(bytes));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      refused = true;
    }
    same(`${why} (${bytes}) is refused`, refused, true);
  }
}

function checkReplay(vectors) {
  const window = new ReplayWindow();
  vectors.forEach(({ number, admitted }, at) => {
    const isNew = window.admits(BigInt(number));
    same(`replay, packet ${number} at ${at}`, isNew, admitted);
    if (isNew) window.note(BigInt(number));
  });
}

const vectors = JSON.parse(readFileSync(process.argv[2], "utf-8"));
const connection = checkHello(vectors.session);
same("what the client is called by", connection, vectors.directions.s2c.connection);
const prk = checkKeys(vectors.session);
for (const direction of ["c2s", "s2c"]) checkDirection(direction, prk, vectors.directions[direction]);
const given = unhex(vectors.given.secret);
checkEpoch("given", given, vectors.given);
for (const packet of vectors.given.packets) {
  const called = unhex(vectors.directions.c2s.connection);
  checkPacket(`given, packet ${packet.number}`, () => given, called, packet);
}
checkFrames(vectors);
checkReplay(vectors.replay);
console.log(`${checked} checks, all well`);
