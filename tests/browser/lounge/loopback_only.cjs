// The Lounge looks for newer versions of itself on the internet. A test must not.
const dns = require("node:dns");
const lookup = dns.lookup;

dns.lookup = (name, ...rest) => {
  if (name === "localhost" || name === "127.0.0.1") return lookup(name, ...rest);
  const done = rest.at(-1);
  process.nextTick(() => done(new Error(`not looked up: ${name}`)));
};
