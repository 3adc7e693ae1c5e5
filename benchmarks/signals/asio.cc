// Boost.Asio's signal_set, in a loop on the main thread, or `elsewhere` while
// that one sleeps.

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <memory>

#include "tocsin/benchmarks/signals/assignment.h"
#include "tocsin/benchmarks/signals/run_loop.h"

using tocsin::benchmarks::Assignment;

static void Receive(Assignment& assignment, boost::asio::signal_set& signals) {
  signals.async_wait([&](boost::system::error_code error, int signum) {
    if (error) return;
    assignment.Answer(0, signum);
    Receive(assignment, signals);
  });
}

int main(int argc, char** argv) {
  Assignment assignment(argc, argv, 1);
  boost::asio::io_context context(1);
  if (assignment.task().starts_with("open_close")) {
    return assignment.MeasureOpenClose([&] {
      return std::make_unique<boost::asio::signal_set>(context,
                                                       assignment.signals()[0]);
    });
  }
  boost::asio::signal_set signals(context);
  for (int signum : assignment.signals()) signals.add(signum);
  Receive(assignment, signals);
  assignment.ReportOpen();
  tocsin::benchmarks::RunLoop(argv[1], [&] { context.run(); });
}
