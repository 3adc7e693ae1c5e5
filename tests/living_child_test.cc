#include "tocsin/signals/internal/living_child.h"

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "gtest/gtest.h"
#include "tests/child.h"
#include "tests/signal_testing.h"

namespace tocsin {
namespace {

using internal::KillLivingChildren;
using internal::LivingChild;

// A child that exits when it is told to, if nobody kills it before.
class PatientChild {
 public:
  PatientChild()
      : child_(Fork([this] { exit_.Take(); })),
        pidfd_(static_cast<int>(syscall(SYS_pidfd_open, child_.pid(), 0))) {
    living_.Know(child_.pid(), pidfd_, /*own_group=*/false);
  }
  ~PatientChild() { close(pidfd_); }

  void Forget() { living_.Forget(); }
  bool ExitsWhenToldTo() {
    exit_.Put();
    return WIFEXITED(child_.Wait());
  }

 private:
  const Pipe exit_;
  Child child_;
  const int pidfd_;
  LivingChild living_;
};

// In a process of its own, because it kills those that come later, too.
TEST(KillLivingChildren, SparesThoseThatWereForgottenInWhateverOrder) {
  std::array<size_t, 3> order = {0, 1, 2};
  do {
    Child process(Fork([&order] {
      std::array<PatientChild, 3> children;
      children[order[0]].Forget();
      children[order[1]].Forget();
      KillLivingChildren();
      EXPECT_TRUE(children[order[0]].ExitsWhenToldTo());
      EXPECT_TRUE(children[order[1]].ExitsWhenToldTo());
      EXPECT_FALSE(children[order[2]].ExitsWhenToldTo());
    }));
    EXPECT_EQ(ExitStatus(process.Wait()), 0) << testing::PrintToString(order);
  } while (std::next_permutation(order.begin(), order.end()));
}

}  // namespace
}  // namespace tocsin
