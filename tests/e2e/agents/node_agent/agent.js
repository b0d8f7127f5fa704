'use strict';
// A Node agent of the refund desk: a client certificate, the exported client view, and no secret.
//
// It speaks the command language of ../python_agent.py: one JSON object a line on stdin (or a JSON list after
// --scenario), one JSON answer a line on stdout. --generated names the folder with the exported .proto files.

const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const { parseArgs } = require('node:util');

const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const SERVICE = 'shop.v1.Orders';

// The few messages of google.rpc that travel in grpc-status-details-bin (a public format).
const GOOGLE_RPC = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1;
  }
  message RetryInfo { Duration retry_delay = 1; }
`, { keepCase: true }).root;

const DETAIL_READERS = {
  'google.rpc.ErrorInfo': (info) => ({
    reason: info.reason, domain: info.domain, reason_metadata: { ...info.metadata },
  }),
  'google.rpc.BadRequest': (request) => ({
    violations: request.field_violations.map(({ field, description }) => ({ field, description })),
  }),
  'google.rpc.RetryInfo': (retry) => ({
    retry_after_seconds: Number(retry.retry_delay.seconds) + retry.retry_delay.nanos / 1e9,
  }),
};

function readDetails(metadata) {
  const found = { reason: '' };
  const [bytes] = metadata.get('grpc-status-details-bin');
  if (!bytes) return found;
  for (const detail of GOOGLE_RPC.lookupType('google.rpc.Status').decode(bytes).details) {
    const name = detail.type_url.split('/').pop();
    const read = DETAIL_READERS[name];
    if (read) Object.assign(found, read(GOOGLE_RPC.lookupType(name).decode(detail.value)));
  }
  return found;
}

function readableTrailers(metadata) {
  const entries = Object.entries(metadata.getMap());
  return Object.fromEntries(entries.filter(([, value]) => typeof value === 'string'));
}

function trailerBytes(metadata) {
  const parts = [];
  for (const key of Object.keys(metadata.getMap())) {
    for (const value of metadata.get(key)) {
      parts.push(Buffer.concat([Buffer.from(`${key}: `), Buffer.from(value)]));
    }
  }
  return Buffer.concat(parts.flatMap((part) => [part, Buffer.from('\n')]));
}

class Agent {
  constructor(client, service) {
    this.client = client;
    this.service = service;
    this.kept = [];
  }

  async answer(command) {
    if ('call' in command) return this.call(command);
    if ('hold' in command) return this.keep(command.hold, { held: true });
    if ('open' in command) return this.keep(fs.openSync(command.open, 'r'), { opened: command.open });
    if ('about' in command) {
      const modules = Object.keys(require.cache).map((file) => path.relative(__dirname, file));
      return { pid: process.pid, modules: modules.sort() };
    }
    return { error: `no such command: ${Object.keys(command).sort()}` };
  }

  keep(thing, answer) {
    this.kept.push(thing);
    return answer;
  }

  call(command) {
    const method = this.service[command.call];
    const wire = { request: Buffer.alloc(0), answer: Buffer.alloc(0) };
    const started = process.hrtime.bigint();
    const serialize = (request) => {
      wire.request = Buffer.isBuffer(request) ? request : method.requestSerialize(request);
      return wire.request;
    };
    const deserialize = (bytes) => {
      wire.answer = bytes;
      return method.responseDeserialize(bytes);
    };
    return new Promise((resolve) => {
      let status = null;
      const deadline = Date.now() + 1000 * (command.deadline_seconds ?? 15);
      const call = this.client.makeUnaryRequest(
        method.path, serialize, deserialize, requestOf(command), metadataOf(command), { deadline },
        (error, result) => {
          // The status event comes after the callback of a failed call: wait for whichever is last.
          setImmediate(() => {
            const seen = status ?? error ?? { code: 0, details: '', metadata: new grpc.Metadata() };
            const millis = Number(process.hrtime.bigint() - started) / 1e6;
            resolve(describe(command, seen, result, wire, millis));
          });
        },
      );
      call.on('status', (seen) => { status = seen; });
      if ('cancel_after_seconds' in command) setTimeout(() => call.cancel(), 1000 * command.cancel_after_seconds);
    });
  }
}

function requestOf(command) {
  return 'raw_request_hex' in command ? Buffer.from(command.raw_request_hex, 'hex') : (command.request ?? {});
}

function metadataOf(command) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(command.metadata ?? {})) metadata.set(key, value);
  return metadata;
}

function describe(command, status, result, wire, millis) {
  const outcome = {
    step: command.step ?? command.call,
    method: `${SERVICE}/${command.call}`,
    code: grpc.status[status.code],
    trailers: readableTrailers(status.metadata),
  };
  if (status.code === grpc.status.OK) outcome.result = result;
  else Object.assign(outcome, { message: status.details }, readDetails(status.metadata));
  outcome.millis = Math.round(millis * 10) / 10;
  if (command.wire) {
    outcome.wire = {
      request_hex: wire.request.toString('hex'),
      answer_hex: wire.answer.toString('hex'),
      trailers_hex: trailerBytes(status.metadata).toString('hex'),
    };
  }
  return outcome;
}

function openClient(options) {
  const read = (file) => (file ? fs.readFileSync(file) : null);
  const credentials = grpc.credentials.createSsl(read(options.ca), read(options.key), read(options.cert));
  return new grpc.Client(options.address, credentials);
}

function loadService(folder) {
  const definition = protoLoader.loadSync('shop/v1/orders.proto', {
    includeDirs: [folder], longs: String, enums: String, bytes: String,
  });
  return definition[SERVICE];
}

async function* readCommands(options) {
  if (options.scenario) {
    yield* JSON.parse(options.scenario);
    return;
  }
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line.trim()) yield JSON.parse(line);
  }
}

async function main() {
  const text = { type: 'string' };
  const { values: options } = parseArgs({
    options: { address: text, ca: text, cert: text, key: text, generated: text, scenario: text },
  });
  const client = openClient(options);
  const agent = new Agent(client, loadService(options.generated));
  for await (const command of readCommands(options)) {
    process.stdout.write(`${JSON.stringify(await agent.answer(command))}\n`);
  }
  client.close();
}

main();
