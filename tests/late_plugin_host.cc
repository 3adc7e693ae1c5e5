// A program without Tocsin. It ignores SIGPIPE and SIGUSR1, as Python does the
// one, loads the plug-in that it is given, and prints what a child of the
// plug-in ignores. With "preloaded", LD_PRELOAD has loaded it.
//
// late_plugin_host dlopen PATH | dlmopen PATH | preloaded
#include <dlfcn.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const std::string way = argv[1];
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGUSR1, SIG_IGN);
  void* plugin = RTLD_DEFAULT;
  if (way == "dlopen") plugin = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
  if (way == "dlmopen") plugin = dlmopen(LM_ID_NEWLM, argv[2], RTLD_NOW);
  auto* ignores = reinterpret_cast<uint64_t (*)()>(
      dlsym(plugin, "late_plugin_child_ignores"));
  if (ignores == nullptr) {
    std::printf("%s\n", dlerror());
    return 1;
  }
  std::printf("%llx\n", static_cast<unsigned long long>(ignores()));
  return 0;
}
