#include "tocsin/benchmarks/tasks/contender.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

namespace tocsin::benchmarks {

void Contender::AddTimed(const std::string& name, const std::string& unit,
                         std::function<double(bool quick)> run) {
  cases_.push_back({name, unit, true, std::move(run)});
}

void Contender::Add(const std::string& name, const std::string& unit,
                    std::function<double(bool quick)> run) {
  cases_.push_back({name, unit, false, std::move(run)});
}

int Contender::Run(int argc, char** argv) const {
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--quick") {
      quick = true;
      continue;
    }
    if (argument == "--list") {
      for (const Case& c : cases_) std::puts(c.name.c_str());
      continue;
    }
    const auto it = std::find_if(
        cases_.begin(), cases_.end(),
        [&](const Case& c) { return argument == "--case=" + c.name; });
    if (it == cases_.end()) {
      std::fprintf(stderr, "%s: no such case; see --list\n", argument.c_str());
      return 1;
    }
    std::vector<double> values;
    const auto start = std::chrono::steady_clock::now();
    const auto enough = std::chrono::milliseconds(quick ? 0 : 300);
    if (it->timed) it->run(quick);  // warms up
    do {
      values.push_back(it->run(quick));
    } while (it->timed && (values.size() < 3 ||
                           std::chrono::steady_clock::now() - start < enough));
    const auto middle = values.begin() + values.size() / 2;
    std::nth_element(values.begin(), middle, values.end());
    std::printf(
        "{\"case\": \"%s\", \"contender\": \"%s\", \"unit\": \"%s\", "
        "\"value\": %.6g}\n",
        it->name.c_str(), name_.c_str(), it->unit.c_str(), *middle);
  }
  return 0;
}

}  // namespace tocsin::benchmarks
