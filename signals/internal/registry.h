// Which subscriptions are open: all of them, and those to each signal, in the
// order in which they were opened. To add or to remove one costs as much as it
// has signals, however many others are open.
//
// Any thread that holds the dispatcher's mutex may use it. It allocates
// nothing: the links are in the subscribers.
#ifndef TOCSIN_SIGNALS_INTERNAL_REGISTRY_H_
#define TOCSIN_SIGNALS_INTERNAL_REGISTRY_H_

#include "tocsin/signals/internal/raw_siginfo.h"
#include "tocsin/signals/internal/subscriber.h"

namespace tocsin::inline v0_2::internal {

class Registry {
 public:
  // A list, for a range-based loop that removes none.
  class Subscribers;

  // REQUIRES: it is not in it.
  void Add(Subscriber& subscriber);
  // False if it is not in it (any more).
  bool Remove(Subscriber& subscriber);
  void Clear();
  // One that is in it is subscribed to `signum` from now on.
  void AddFor(int signum, Subscriber& subscriber) { Link(signum, subscriber); }

  bool contains(const Subscriber& subscriber) const {
    return subscriber.registered_;
  }
  // Whether several are subscribed to `signum`.
  bool IsShared(int signum) const {
    return lists_[signum].first != lists_[signum].last;
  }
  // Whether `subscriber`, which is subscribed to `signum`, is the only one.
  bool IsOnly(int signum, const Subscriber& subscriber) const {
    return lists_[signum].first == &subscriber && !IsShared(signum);
  }

  Subscriber* first() const { return lists_[kAll].first; }
  Subscribers all() const;
  Subscribers For(int signum) const;

 private:
  // In place of a signal's number.
  static constexpr int kAll = 0;

  struct List {
    Subscriber* first = nullptr;
    Subscriber* last = nullptr;
  };

  void Link(int list, Subscriber& subscriber);
  void Unlink(int list, Subscriber& subscriber);

  List lists_[kSignals];
};

class Registry::Subscribers {
 public:
  class iterator {
   public:
    Subscriber& operator*() const { return *at_; }
    iterator& operator++() {
      at_ = at_->links_[list_].next;
      return *this;
    }
    friend bool operator==(const iterator&, const iterator&) = default;

   private:
    friend class Subscribers;
    iterator(Subscriber* at, int list) : at_(at), list_(list) {}

    Subscriber* at_;
    int list_;
  };

  bool empty() const { return first_ == nullptr; }
  iterator begin() const { return {first_, list_}; }
  iterator end() const { return {nullptr, list_}; }

 private:
  friend class Registry;
  Subscribers(Subscriber* first, int list) : first_(first), list_(list) {}

  Subscriber* const first_;
  const int list_;
};

inline Registry::Subscribers Registry::all() const { return For(kAll); }
inline Registry::Subscribers Registry::For(int signum) const {
  return {lists_[signum].first, signum};
}

}  // namespace tocsin::inline v0_2::internal

#endif  // TOCSIN_SIGNALS_INTERNAL_REGISTRY_H_
