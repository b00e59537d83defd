// Runs bcoin, a full Bitcoin node, on regtest for tests/node/bcoin_node.py, which describes how it is used.
//
// usage: node start-node.js CACHE_DIR '{"apiKey": TEXT, "port": N (0: any), "blocks": FILE or null}'
// Prints {"port": N} on one line when it is ready. Ends when its standard input ends, so it never outlives its parent.
// `blocks`: connected blocks are appended to this file and replayed at the next start; the mempool is not kept.
'use strict';

const fs = require('fs');
const Module = require('module');
const path = require('path');

process.env.NODE_BACKEND = 'js'; // no native code is built: pure JavaScript throughout

const [, , cacheDir, optionsText] = process.argv;
const options = JSON.parse(optionsText);

// bcoin's native database is not built (npm install --ignore-scripts); with `memory` it is never asked for anything.
const load = Module._load;
Module._load = function (request, ...rest) {
  if (request === 'leveldown')
    return class { constructor() { throw new Error('this node has no database on disk'); } };
  return load.call(this, request, ...rest);
};

const modules = path.join(cacheDir, 'node_modules');
const FullNode = require(path.join(modules, 'bcoin/lib/node/fullnode'));
const Block = require(path.join(modules, 'bcoin/lib/primitives/block'));
const addCoreCalls = require('./core-calls');

function replay(node, file) {
  const raw = fs.existsSync(file) ? fs.readFileSync(file) : Buffer.alloc(0);
  const blocks = [];
  for (let at = 0; at + 4 <= raw.length;) {
    const size = raw.readUInt32LE(at);
    if (at + 4 + size > raw.length)
      break; // the node was killed while it wrote
    blocks.push(Block.fromRaw(raw.slice(at + 4, at + 4 + size)));
    at += 4 + size;
  }
  return blocks.reduce((before, block) => before.then(async () => {
    const ahead = block.time - Math.floor(Date.now() / 1000);
    if (ahead > 0)
      node.network.time.offset = ahead;
    await node.chain.add(block);
  }), Promise.resolve());
}

function record(node, file) {
  const handle = fs.openSync(file, 'a');
  node.chain.on('connect', (entry, block) => {
    const raw = block.toRaw();
    const size = Buffer.alloc(4);
    size.writeUInt32LE(raw.length);
    fs.writeSync(handle, Buffer.concat([size, raw]));
  });
}

(async () => {
  const node = new FullNode({
    network: 'regtest', memory: true, workers: false, listen: false, logLevel: 'none', logConsole: false,
    requireStandard: true, indexTx: true, indexAddress: true,
    httpHost: '127.0.0.1', httpPort: options.port, apiKey: options.apiKey
  });
  addCoreCalls(node, modules);
  node.http.on('listening', address => { options.listening = address.port; });
  await node.open();
  if (options.blocks) {
    await replay(node, options.blocks);
    record(node, options.blocks);
  }
  process.stdin.on('end', () => process.exit(0));
  process.stdin.resume();
  console.log(JSON.stringify({ port: options.listening }));
})().catch((error) => {
  console.error(error.stack);
  process.exit(1);
});
