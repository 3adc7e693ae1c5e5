// The example http_server under real connections.
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/program.h"

namespace tocsin {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kOk[] = "HTTP/1.1 200 OK\r\n";
constexpr char kUnavailable[] = "HTTP/1.1 503 Service Unavailable\r\n";

// A server, on a port of its own.
class HttpServer : public StartedProgram {
 public:
  HttpServer(const std::string& drain, const std::string& grace,
             const std::string& greeting_file = "")
      : StartedProgram(
            {"examples/http_server", "0", drain, grace, greeting_file}) {
    const std::string line = ReadLine();
    const std::string start = "Listening on port ";
    EXPECT_THAT(line, StartsWith(start));
    port_ = std::atoi(line.c_str() + start.size());
  }

  int port() const { return port_; }

 private:
  int port_;
};

class Connection {
 public:
  explicit Connection(const HttpServer& server) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(server.port()));
    connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&address),
                         sizeof(address)) == 0;
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { close(fd_); }

  bool connected() const { return connected_; }

  void Send(const std::string& text) {
    EXPECT_EQ(send(fd_, text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }

  // All that comes until the server closes the connection.
  std::string Receive() {
    std::string all;
    char some[4096];
    for (ssize_t size; (size = recv(fd_, some, sizeof(some), 0)) > 0;) {
      all.append(some, static_cast<size_t>(size));
    }
    return all;
  }

 private:
  const int fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool connected_;
};

std::string Request(const std::string& path) {
  return absl::StrCat("GET ", path,
                      " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
}

std::string Get(const HttpServer& server, const std::string& path) {
  Connection connection(server);
  EXPECT_TRUE(connection.connected());
  connection.Send(Request(path));
  return connection.Receive();
}

// Returns what it prints. It takes none for a person's second one before a
// quarter of a second is over. A request that hangs keeps it in Run() until
// then.
std::string PressCtrlCUntilItDies(HttpServer& server) {
  const std::jthread impatient([&](const std::stop_token& dead) {
    while (!dead.stop_requested()) {
      server.Send(SIGINT);
      sched_yield();
    }
  });
  return server.ReadAll();
}

TEST(HttpServer, TellsTheBalancerAndServesOnWhileItDrains) {
  HttpServer server("1h", "1h");
  EXPECT_THAT(Get(server, "/healthz"), StartsWith(kOk));
  server.Send(SIGTERM);
  while (Get(server, "/healthz").starts_with(kOk)) continue;
  EXPECT_THAT(Get(server, "/healthz"), StartsWith(kUnavailable));
  EXPECT_THAT(Get(server, "/"), StartsWith(kOk));

  // A supervisor repeats itself; a second Ctrl+C means it.
  server.Send(SIGTERM);
  EXPECT_THAT(Get(server, "/"), StartsWith(kOk));
  Connection stuck(server);
  stuck.Send(Request("/hang"));
  EXPECT_EQ(server.ReadLine(), "Hanging request");
  EXPECT_THAT(PressCtrlCUntilItDies(server),
              HasSubstr("a second signal came, SIGINT from"));
  EXPECT_EQ(KillingSignal(server.Wait()), SIGTERM);
}

TEST(HttpServer, AnswersWhatItHasAcceptedBeforeItDiesByTheSignal) {
  HttpServer server("0s", "1h");
  Connection slow(server);
  slow.Send(Request("/slow"));
  EXPECT_EQ(server.ReadLine(), "Slow request");
  server.Send(SIGTERM);
  while (Connection(server).connected()) continue;
  EXPECT_THAT(slow.Receive(), HasSubstr("At last."));
  EXPECT_EQ(KillingSignal(server.Wait()), SIGTERM);
}

TEST(HttpServer, ReloadsAtHangUp) {
  const std::string file = absl::StrCat(testing::TempDir(), "/greeting");
  std::ofstream(file) << "Good morning.\n";
  HttpServer server("0s", "1h", file);
  EXPECT_THAT(Get(server, "/"), HasSubstr("Good morning."));
  std::ofstream(file) << "Good evening.\n";
  server.Send(SIGHUP);
  EXPECT_THAT(server.ReadLine(), StartsWith("Reloaded for SIGHUP from pid "));
  EXPECT_THAT(Get(server, "/"), HasSubstr("Good evening."));
}

TEST(HttpServer, NamesARequestThatNeverEndsAndDiesWithoutIt) {
  HttpServer server("0s", "10ms");
  Connection stuck(server);
  stuck.Send(Request("/hang"));
  EXPECT_EQ(server.ReadLine(), "Hanging request");
  server.Send(SIGTERM);
  EXPECT_THAT(server.ReadAll(),
              HasSubstr("\ntocsin:     connection 1 waits in a "
                        "BlockingRegion for "));
  EXPECT_EQ(KillingSignal(server.Wait()), SIGTERM);
}

TEST(HttpServer, DiesAtTheSecondInterrupt) {
  HttpServer server("0s", "1h");
  Connection stuck(server);
  stuck.Send(Request("/hang"));
  EXPECT_EQ(server.ReadLine(), "Hanging request");
  server.Send(SIGINT);
  while (Connection(server).connected()) continue;
  EXPECT_THAT(PressCtrlCUntilItDies(server),
              HasSubstr("a second signal came, SIGINT from"));
  EXPECT_EQ(KillingSignal(server.Wait()), SIGINT);
}

TEST(HttpServer, ExplainsItself) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"http"}, {"70000"}, {"0", "soon"}}) {
    std::vector<std::string> argv = {"examples/http_server"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    StartedProgram server(argv);
    EXPECT_THAT(server.ReadAll(), StartsWith("usage: "));
    EXPECT_EQ(ExitStatus(server.Wait()), 2);
  }
}

}  // namespace
}  // namespace tocsin
