// An HTTP server that stops well. On SIGTERM it tells the load balancer to go
// elsewhere and serves on (the drain), then accepts no more, answers what it
// has accepted, and dies by the signal.
//
//   http_server [PORT [DRAIN [GRACE [GREETING_FILE]]]]
//
// /         greets, in the words of GREETING_FILE; SIGHUP reads it again
// /healthz  is 200, and 503 while draining
// /slow     takes a second
// /hang     never ends
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <stop_token>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "httplib.h"
#include "tocsin/concurrency/blocking_region.h"
#include "tocsin/concurrency/clean_up_scope.h"
#include "tocsin/concurrency/wait.h"
#include "tocsin/signals/run.h"
#include "tocsin/signals/service_manager.h"

using tocsin::Program;
using tocsin::SignalEvent;
using tocsin::SignalReceiver;
using tocsin::TaskGroup;

struct Arguments {
  int port = 8080;  // 0: any
  absl::Duration drain = absl::Seconds(5);
  absl::Duration grace = absl::Seconds(25);
  std::string greeting_file;
};

class Greeting {
 public:
  explicit Greeting(std::string file) : file_(std::move(file)) { Read(); }

  void Read() {
    std::ifstream in(file_);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    absl::MutexLock lock(&mutex_);
    text_ = text.empty() ? "Hello.\n" : text;
  }
  std::string text() const {
    absl::MutexLock lock(&mutex_);
    return text_;
  }

 private:
  const std::string file_;
  mutable absl::Mutex mutex_;
  std::string text_ ABSL_GUARDED_BY(mutex_);
};

// Serves each connection in a task.
class Connections : public httplib::TaskQueue {
 public:
  explicit Connections(TaskGroup& tasks) : tasks_(tasks) {}

  // One that was accepted is served, even once the program is being stopped.
  void enqueue(std::function<void()> serve) override {
    tasks_.Spawn(
        [serve = std::move(serve)] {
          tocsin::BlockingRegion reads_and_writes;
          serve();
        },
        {.name = absl::StrCat("connection ", ++accepted_),
         .start_even_if_cancelled = true});
  }
  void shutdown() override {}  // Wait() waits for them

 private:
  TaskGroup& tasks_;
  int accepted_ = 0;
};

class Server : public httplib::Server {
 public:
  // stop() would also leave connections that have not sent their request yet.
  void StopAccepting() { shutdown(svr_sock_, SHUT_RDWR); }
};

absl::Status Serve(const Arguments& arguments, Program& program) {
  TaskGroup& tasks = program.tasks();
  absl::StatusOr<SignalReceiver> hang_ups = program.signals().Open({SIGHUP});
  if (!hang_ups.ok()) return hang_ups.status();
  Greeting greeting(arguments.greeting_file);
  const std::stop_token draining = program.shutdown().drain_token();
  Server server;
  server.new_task_queue = [&] { return new Connections(tasks); };
  server.set_keep_alive_timeout(1);
  server.set_post_routing_handler([&](const auto&, httplib::Response& answer) {
    if (draining.stop_requested()) answer.set_header("Connection", "close");
  });
  server.Get("/", [&](const auto&, httplib::Response& answer) {
    answer.set_content(greeting.text(), "text/plain");
  });
  // [guide: readiness]
  server.Get("/healthz", [&](const auto&, httplib::Response& answer) {
    answer.status = draining.stop_requested() ? 503 : 200;
  });
  // [guide]
  server.Get("/slow", [](const auto&, httplib::Response& answer) {
    std::cout << "Slow request" << std::endl;
    tocsin::CleanUpScope to_the_end;
    tocsin::Sleep(absl::Seconds(1)).IgnoreError();
    answer.set_content("At last.\n", "text/plain");
  });
  server.Get("/hang", [](const auto&, httplib::Response&) {
    std::cout << "Hanging request" << std::endl;
    while (true) pause();
  });

  const int port = arguments.port == 0 ? server.bind_to_any_port("0.0.0.0")
                   : server.bind_to_port("0.0.0.0", arguments.port)
                       ? arguments.port
                       : -1;
  if (port < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on port ", arguments.port));
  }
  // [guide: notify]
  tasks.SpawnBackground([&] {
    for (const SignalEvent& event : *hang_ups) {
      tocsin::NotifyReloading().IgnoreError();
      greeting.Read();
      tocsin::NotifyReady().IgnoreError();
      std::cout << "Reloaded for " << event << std::endl;
    }
  });
  // [guide]

  // [guide: listen]
  const std::stop_callback stop_accepting(tasks.scope().stop_token(),
                                          [&] { server.StopAccepting(); });
  std::cout << "Listening on port " << port << std::endl;
  tocsin::NotifyReady().IgnoreError();
  server.listen_after_bind();
  return tasks.Wait();
  // [guide]
}

int main(int argc, char** argv) {
  Arguments arguments;
  if (argc > 5 || (argc > 1 && !absl::SimpleAtoi(argv[1], &arguments.port)) ||
      arguments.port < 0 || arguments.port > 65535 ||
      (argc > 2 && !absl::ParseDuration(argv[2], &arguments.drain)) ||
      (argc > 3 && !absl::ParseDuration(argv[3], &arguments.grace))) {
    std::fprintf(stderr,
                 "usage: %s [PORT [DRAIN [GRACE [GREETING_FILE]]]]\n"
                 "DRAIN and GRACE are durations such as 5s or 1m30s\n",
                 argv[0]);
    return 2;
  }
  if (argc > 4) arguments.greeting_file = argv[4];
  // [guide: phases]
  return tocsin::Run(
      [&](Program& program) { return Serve(arguments, program); },
      {.shutdown = {.drain = arguments.drain, .grace = arguments.grace}});
  // [guide]
}
