// Loops without a loop; included inside an unnamed namespace, once a source file, ahead of V.

// fn(0), ..., fn(count - 1), with constants: arrays of registers that plain loops fill or empty
// pass through memory (g++ 12), a twentieth to a tenth of a kernel's time.
template <int count, typename Fn>
inline __attribute__((always_inline)) void Unroll(const Fn& fn) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (fn(std::integral_constant<int, i>()), ...);
  }
  (std::make_integer_sequence<int, count>());
}

// fn(i, j) for all i < rows and j < columns, likewise.
template <int rows, int columns, typename Fn>
inline __attribute__((always_inline)) void UnrollGrid(const Fn& fn) {
  Unroll<rows>([&](auto i) __attribute__((always_inline)) {
    Unroll<columns>([&](auto j) __attribute__((always_inline)) { fn(i, j); });
  });
}
