// What the programs of one benchmark have in common: their command line and
// what they print. Each is one contender.
//
//   --list         prints the names of its cases, one per line
//   --case=NAME    runs that case and prints what it measured, an object in
//                  JSON per line
//   --quick        before the above: does little, to see that it works
//
// Lower is better, unless the unit ends in "/s".
#ifndef TOCSIN_BENCHMARKS_TASKS_CONTENDER_H_
#define TOCSIN_BENCHMARKS_TASKS_CONTENDER_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace tocsin::benchmarks {

class Contender {
 public:
  explicit Contender(std::string name) : name_(std::move(name)) {}

  // `run` returns what one run took, in nanoseconds, for each of `per` things.
  // It is called several times; the median is reported.
  void AddTimed(const std::string& name, const std::string& unit,
                std::function<double(bool quick)> run);
  // The same, called once.
  void Add(const std::string& name, const std::string& unit,
           std::function<double(bool quick)> run);

  // For main().
  int Run(int argc, char** argv) const;

 private:
  struct Case {
    std::string name;
    std::string unit;
    bool timed;
    std::function<double(bool quick)> run;
  };

  const std::string name_;
  std::vector<Case> cases_;
};

}  // namespace tocsin::benchmarks

#endif  // TOCSIN_BENCHMARKS_TASKS_CONTENDER_H_
