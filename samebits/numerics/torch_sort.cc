#include "samebits/numerics/torch_sort.h"

#include <bit>
#include <cstddef>
#include <utility>

namespace samebits {
namespace {

constexpr std::ptrdiff_t kFewEnough = 16;  // so many are left to the insertion sort

bool Less(const IndexedValue& a, const IndexedValue& b) { return a.value < b.value; }

// Of three the middle one, by libstdc++'s questions: which of equal ones it is matters.
IndexedValue* Median(IndexedValue* a, IndexedValue* b, IndexedValue* c) {
  if (Less(*a, *b)) {
    if (Less(*b, *c)) return b;
    return Less(*a, *c) ? c : a;
  }
  if (Less(*a, *c)) return a;
  return Less(*b, *c) ? c : b;
}

// *first is the pivot; returns where the part begins that is not below it.
IndexedValue* Partition(IndexedValue* first, IndexedValue* last) {
  const IndexedValue pivot = *first;
  IndexedValue* low = first + 1;
  IndexedValue* high = last;
  while (true) {
    while (Less(*low, pivot)) ++low;
    --high;
    while (Less(pivot, *high)) --high;
    if (low >= high) return low;
    std::swap(*low, *high);
    ++low;
  }
}

// The hole sinks to a leaf along the larger children, then `value` rises from there.
void SiftDown(IndexedValue* heap, std::ptrdiff_t hole, std::ptrdiff_t size, IndexedValue value) {
  const std::ptrdiff_t top = hole;
  std::ptrdiff_t child = 2 * hole + 2;
  while (child < size) {
    if (Less(heap[child], heap[child - 1])) --child;
    heap[hole] = heap[child];
    hole = child;
    child = 2 * hole + 2;
  }
  if (child == size) {  // a left child only
    heap[hole] = heap[child - 1];
    hole = child - 1;
  }
  while (hole > top && Less(heap[(hole - 1) / 2], value)) {
    heap[hole] = heap[(hole - 1) / 2];
    hole = (hole - 1) / 2;
  }
  heap[hole] = value;
}

void HeapSort(IndexedValue* first, IndexedValue* last) {
  const std::ptrdiff_t size = last - first;
  for (std::ptrdiff_t parent = size / 2 - 1; parent >= 0; --parent) {
    SiftDown(first, parent, size, first[parent]);
  }
  for (std::ptrdiff_t end = size - 1; end > 0; --end) {
    const IndexedValue value = first[end];
    first[end] = first[0];
    SiftDown(first, 0, end, value);
  }
}

// Leaves parts of at most 16 unsorted, each in its place; a part that was cut too often is sorted
// by heap.
void IntroSort(IndexedValue* first, IndexedValue* last, int cuts_left) {
  while (last - first > kFewEnough) {
    if (cuts_left-- == 0) return HeapSort(first, last);
    std::swap(*first, *Median(first + 1, first + (last - first) / 2, last - 1));
    IndexedValue* cut = Partition(first, last);
    IntroSort(cut, last, cuts_left);
    last = cut;
  }
}

void InsertionSort(IndexedValue* first, IndexedValue* last) {
  for (IndexedValue* next = first; next != last; ++next) {
    const IndexedValue value = *next;
    IndexedValue* hole = next;
    while (hole != first && Less(value, *(hole - 1))) {
      *hole = *(hole - 1);
      --hole;
    }
    *hole = value;
  }
}

}  // namespace

void TorchSort(std::span<IndexedValue> pairs) {
  if (pairs.empty()) return;
  IndexedValue* first = pairs.data();
  IndexedValue* last = first + pairs.size();
  const int log2 = static_cast<int>(std::bit_width(pairs.size())) - 1;
  IntroSort(first, last, 2 * log2);
  // libstdc++ has an insertion sort for the first 16 and another for the rest, and one that sees a
  // new minimum shifts in one go: the result is the same, since equal values never pass each other.
  InsertionSort(first, last);
}

}  // namespace samebits
