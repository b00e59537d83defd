// Makes bcoin 1.0.2 answer as Bitcoin Core documents, where it differs or lacks a call that paychan uses.
//
// Chain, mempool, scripts, mining and reorganisation stay bcoin's own. Written here, and so proven only against the
// stand-in of Core (tests/chain/core_stand_in.py): the watch-only wallet (kept in memory, on bcoin's address index), the
// version number, and the shape of estimatesmartfee. Still missing: testmempoolaccept, gettransaction, getdescriptorinfo.
// Kept with bcoin's fault: gettxout shows outputs that the mempool has spent.
'use strict';

const path = require('path');

const NOT_FOUND = -5;
const INVALID_PARAMETER = -8;
const WALLET_NOT_FOUND = -18;
const ALREADY_LOADED = -35;
const VERIFY_ERROR = -25;
const VERIFY_REJECTED = -26;
const ALREADY_IN_CHAIN = -27;
const VERSION = 250000;
const COINBASE_MATURITY = 100;
const DESCRIPTOR = /^raw\(([0-9a-f]+)\)#[a-z0-9]{8}$/;

module.exports = function addCoreCalls(node, modules) {
  const load = name => require(path.join(modules, 'bcoin/lib', name));
  const { RPCError } = require(path.join(modules, 'bweb')).RPC;
  const context = {
    node, RPCError, calls: node.rpc.calls, wallets: new Map(), walletName: '', mocked: false,
    Address: load('primitives/address'), Amount: load('btc/amount'), Script: load('script/script'), TX: load('primitives/tx')
  };
  routeWallets(context);
  adaptAnswers(context);
  addMempoolCalls(context);
  addWalletCalls(context);
  addMining(context);
};

// Core has one endpoint for each wallet. The name is read when a call begins, before anything else can begin.
function routeWallets(context) {
  const { http, rpc } = context.node;
  http.http.prependListener('request', (request) => {
    const match = /^\/wallet\/([A-Za-z0-9._-]+)$/.exec(request.url);
    if (match)
      request.url = `/?wallet=${match[1]}`;
  });
  const handleCall = rpc.handleCall;
  rpc.handleCall = function (command, query) {
    context.walletName = query.wallet || '';
    return handleCall.call(this, command, query);
  };
}

function replace(context, name, make) {
  context.calls[name] = make(context.calls[name].bind(context.node.rpc));
}

function adaptAnswers(context) {
  const { node, RPCError } = context;
  const missingAs = original => async (args) => {
    try {
      return await original(args);
    } catch (error) {
      throw /not found|not in mempool/.test(error.message) ? new RPCError(NOT_FOUND, error.message) : error;
    }
  };
  replace(context, 'getrawtransaction', original => missingAs(args => original([args[0], Boolean(args[1])])));
  replace(context, 'getmempoolentry', missingAs);
  replace(context, 'getblockheader', missingAs);
  replace(context, 'getblockchaininfo', original => async args => ({
    ...await original(args), initialblockdownload: false, time: node.chain.tip.time
  }));
  replace(context, 'getnetworkinfo', original => async args => ({ ...await original(args), version: VERSION }));
  replace(context, 'getmempoolinfo', original => async (args) => {
    const answer = await original(args);
    return { ...answer, minrelaytxfee: answer.mempoolminfee };
  });
  replace(context, 'estimatesmartfee', original => async (args) => {
    const { fee, blocks } = await original(args.slice(0, 1));
    return fee > 0 ? { feerate: fee, blocks } : { errors: ['Insufficient data or no feerate found'], blocks };
  });
  context.calls.getindexinfo = async () => ({ txindex: { synced: true, best_block_height: node.chain.height } });
}

function addMempoolCalls(context) {
  const { node, calls, RPCError, TX } = context;
  const reversed = hex => Buffer.from(hex, 'hex').reverse().toString('hex');
  calls.gettxspendingprevout = async ([outpoints]) => outpoints.map(({ txid, vout }) => {
    const spender = node.mempool.getSpentTX(reversed(txid), vout);
    return spender ? { txid, vout, spendingtxid: spender.txid() } : { txid, vout };
  });
  // bcoin's own call answers with a txid whatever the transaction is.
  calls.sendrawtransaction = async ([hex]) => {
    let missing;
    const tx = TX.fromRaw(Buffer.from(hex, 'hex'));
    try {
      missing = await node.mempool.addTX(tx);
    } catch (error) {
      if (error.type !== 'VerifyError')
        throw error;
      if (error.reason === 'txn-already-in-mempool')
        return tx.txid();
      const known = error.reason === 'txn-already-known';
      throw new RPCError(known ? ALREADY_IN_CHAIN : VERIFY_REJECTED, error.reason);
    }
    if (missing) {
      node.mempool.removeOrphan(tx.hash('hex')); // Core keeps none from this call
      throw new RPCError(VERIFY_ERROR, 'bad-txns-inputs-missingorspent');
    }
    return tx.txid();
  };
}

function addWalletCalls(context) {
  const { calls, wallets, RPCError } = context;
  const create = (name) => {
    if (wallets.has(name))
      throw new RPCError(-4, 'Wallet file verification failed. Database already exists.');
    wallets.set(name, { loaded: true, scripts: new Set() });
    return { name };
  };
  const load = (name, loaded) => {
    const wallet = wallets.get(name);
    if (!wallet)
      throw new RPCError(WALLET_NOT_FOUND, 'Wallet file verification failed. Path does not exist.');
    if (wallet.loaded === loaded)
      throw new RPCError(loaded ? ALREADY_LOADED : WALLET_NOT_FOUND, 'Wallet is already so.');
    wallet.loaded = loaded;
    return { name };
  };
  calls.createwallet = async ([name]) => create(name);
  calls.loadwallet = async ([name]) => load(name, true);
  calls.unloadwallet = async ([name]) => load(name, false);
  calls.listwallets = async () => [...wallets].filter(([, wallet]) => wallet.loaded).map(([name]) => name);
  calls.listwalletdir = async () => ({ wallets: [...wallets.keys()].map(name => ({ name })) });
  calls.listdescriptors = async () => ({
    descriptors: [...current(context).scripts].map(script => ({ desc: `raw(${script})` }))
  });
  calls.importdescriptors = async ([requests]) => importDescriptors(context, current(context), requests);
  calls.listunspent = async args => listUnspent(context, current(context), args);
}

function current({ wallets, walletName, RPCError }) {
  const wallet = wallets.get(walletName);
  if (!wallet || !wallet.loaded)
    throw new RPCError(WALLET_NOT_FOUND, 'Requested wallet does not exist or is not loaded');
  return wallet;
}

function importDescriptors({ RPCError }, wallet, requests) {
  return requests.map(({ desc, timestamp }) => {
    if (!Number.isInteger(timestamp) && timestamp !== 'now')
      throw new RPCError(-3, 'Missing required timestamp field for key');
    const match = DESCRIPTOR.exec(desc);
    if (!match)
      return { success: false, error: { code: NOT_FOUND, message: 'Missing checksum' } };
    wallet.scripts.add(match[1]);
    return { success: true };
  });
}

// Core's addresses on regtest have other version bytes than bcoin's: they are compared as script hashes.
async function listUnspent({ node, Address, Amount, Script, RPCError }, wallet, args) {
  const [minimum, maximum, addresses, , limits] = args;
  const hashes = addresses.map(text => decodeScriptHash(text, RPCError));
  const result = [];
  for (const hex of wallet.scripts) {
    const script = Script.fromRaw(Buffer.from(hex, 'hex'));
    const address = script.getAddress();
    const at = address && address.type === Address.types.SCRIPTHASH ? hashes.indexOf(address.getHash('hex')) : -1;
    if (at < 0)
      continue;
    for (const coin of await node.getCoinsByAddress(address)) {
      const confirmations = coin.getDepth(node.chain.height);
      if (confirmations < minimum || confirmations > maximum || (coin.coinbase && confirmations <= COINBASE_MATURITY))
        continue;
      if (coin.value < Amount.fromBTC(limits.minimumAmount || '0').toValue())
        continue;
      result.push({
        txid: coin.txid(), vout: coin.index, address: addresses[at], scriptPubKey: hex,
        amount: Amount.btc(coin.value, true), confirmations, spendable: false, solvable: false, safe: confirmations > 0
      });
    }
  }
  return result.slice(0, limits.maximumCount);
}

const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';

// Core's P2SH addresses of regtest: version byte c4, 20 bytes, checksum (not looked at).
function decodeScriptHash(text, RPCError) {
  let number = 0n;
  for (const letter of text)
    number = number * 58n + BigInt(ALPHABET.indexOf(letter));
  const hex = number.toString(16).padStart(50, '0');
  if (hex.length !== 50 || !hex.startsWith('c4'))
    throw new RPCError(NOT_FOUND, `Invalid Bitcoin address: ${text}`);
  return hex.slice(2, 42);
}

// paychan_mine {count, script, parent, transactions, mempool}: mine blocks that pay to a script pubkey, on any known
// block (default: the tip), with given raw transactions in the first one that need not have been in the mempool.
function addMining(context) {
  const { node, calls, RPCError, Address, Script, TX } = context;
  const disconnected = [];
  node.chain.on('disconnect', (entry, block) => { disconnected.push(...block.txs.slice(1)); });
  calls.paychan_mine = async ([{ count, script, parent, transactions = [], mempool = true }]) => {
    const address = Address.fromScript(Script.fromRaw(Buffer.from(script, 'hex')));
    let tip = parent ? await node.chain.getEntry(Buffer.from(parent, 'hex').reverse().toString('hex')) : node.chain.tip;
    const hashes = [];
    for (let at = 0; at < count; at++) {
      const job = await node.miner.createJob(tip, address);
      if (!mempool) {
        job.attempt.items = [];
        job.attempt.fees = 0;
      }
      for (const hex of at === 0 ? transactions : [])
        job.pushTX(TX.fromRaw(Buffer.from(hex, 'hex')));
      job.attempt.refresh();
      const block = await job.mineAsync();
      tip = await node.chain.add(block);
      if (!tip)
        throw new RPCError(INVALID_PARAMETER, 'the block was not accepted');
      hashes.push(tip.rhash());
    }
    // As in Core, transactions of blocks that were reorganised away wait again; an empty mempool of bcoin forgets them.
    for (const tx of disconnected.splice(0))
      await node.mempool.addTX(tx).catch(() => {});
    return hashes;
  };
}
