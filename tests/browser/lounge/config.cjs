// The defaults of The Lounge, but for one machine: users choose the server that they connect to.
module.exports = {
  public: false,
  host: "127.0.0.1",
  port: 0,
  lockNetwork: false,
  messageStorage: [],
  prefetch: false,
};
