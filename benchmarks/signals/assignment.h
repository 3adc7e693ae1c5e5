// What the sender asks of a receiver program, by the end of its command line:
//
//   SHEET receive RECEIVERS SIGNAL [SIGNAL]
//       opens so many receivers, each for all of the signals, and answers every
//       signal in the line of the receiver that got it, until it is killed
//   SHEET open_close TIMES SIGNAL
//       opens and closes a receiver so many times and reports the nanoseconds
//       that this took
//
// SHEET is the file of the answer sheet.
#ifndef TOCSIN_BENCHMARKS_SIGNALS_ASSIGNMENT_H_
#define TOCSIN_BENCHMARKS_SIGNALS_ASSIGNMENT_H_

#include <string>
#include <vector>

#include "tocsin/benchmarks/signals/answer_sheet.h"

namespace tocsin::benchmarks {

class Assignment {
 public:
  // `own` is the number of arguments that are the program's own and come first.
  // Ends the program if the rest makes no sense.
  Assignment(int argc, char** argv, int own = 0);

  const std::string& task() const { return task_; }
  int receivers() const { return count_; }
  const std::vector<int>& signals() const { return signals_; }

  void ReportOpen() { sheet_->open.store(1); }
  void Report(uint64_t measured) {
    sheet_->measured.store(measured);
    ReportOpen();
  }

  // One thread at a time for each receiver.
  void Answer(int receiver, int signum) {
    benchmarks::Answer& answer =
        sheet_->lines[receiver].answers[signum == signals_[0] ? 0 : 1];
    answer.time.store(MonotonicNanoseconds(), std::memory_order_relaxed);
    answer.count.store(answer.count.load(std::memory_order_relaxed) + 1,
                       std::memory_order_release);
  }

  // For the task "open_close", and "open_close_1000th" where 999 others are
  // open. What `open` returns is closed when it is destroyed.
  template <typename F>
  int MeasureOpenClose(F open) {
    std::vector<decltype(open())> others;
    if (task_ == "open_close_1000th") {
      while (others.size() < 999) others.push_back(open());
    }
    open();
    const uint64_t start = MonotonicNanoseconds();
    for (int i = 0; i < count_; ++i) open();
    Report(MonotonicNanoseconds() - start);
    return 0;
  }

 private:
  AnswerSheet* sheet_;
  std::string task_;
  int count_;
  std::vector<int> signals_;
};

}  // namespace tocsin::benchmarks

#endif  // TOCSIN_BENCHMARKS_SIGNALS_ASSIGNMENT_H_
