#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

#include "tocsin/benchmarks/tasks/counted_group.h"

namespace {

class Pool {
 public:
  explicit Pool(int threads) : pool_(threads) {}
  template <typename F>
  void Post(F f) {
    boost::asio::post(pool_, std::move(f));
  }

 private:
  boost::asio::thread_pool pool_;
};

}  // namespace

int main(int argc, char** argv) {
  return tocsin::benchmarks::RunPool<Pool>("Boost.Asio", argc, argv);
}
