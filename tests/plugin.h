// What a plug-in of tests/strangers_test.cc has to offer: a service of the copy
// of the library that is linked into it.
#ifndef TOCSIN_TESTS_PLUGIN_H_
#define TOCSIN_TESTS_PLUGIN_H_

struct Plugin {
  // Starts a service with a receiver for SIGTERM. "OK", or why there is none.
  const char* (*start)();
  // Waits for the next signal, and returns its number; -1 if there is no
  // receiver.
  int (*receive)();
  // Closes both.
  void (*stop)();
};

// The plug-in that this is linked into.
extern "C" __attribute__((visibility("default"))) const Plugin plugin;

#endif  // TOCSIN_TESTS_PLUGIN_H_
