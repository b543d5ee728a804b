// Rows as columns; included behind packed_linear.h, once a source file. A register holds one word
// (packed_linear.h) of kLanes rows, so that the lanes of canonical.h are sums of their own and its
// tree is plain additions, in the order in which it adds: no shuffles, and few sums wait.
//
// V gives besides: LoadColumns(rows, at, columns): four words of kLanes rows.

struct LanePanels {
  static constexpr int kLanes = V::kPartLanes;
  static constexpr int64_t kSteps = 64;  // that are made words at once

  // Lanes in the order in which the tree adds neighbours; its own inverse.
  static constexpr int LaneAt(int place) {
    return (place & 1) * 8 + (place & 2) * 2 + (place & 4) / 2 + (place & 8) / 8;
  }

  // The words of kLanes rows, [step][lane], to [place][step]: those of a step `width` floats behind
  // those of the step before, those of a place `pitch` floats.
  static void PackWords(const float* const (&rows)[kLanes], int64_t steps, int64_t pitch,
                        int64_t width, float* to) {
    for (int64_t s = 0; s < steps; ++s, to += width) {
      Unroll<4>([&](auto quad) __attribute__((always_inline)) {
        typename V::Register columns[4];
        V::LoadColumns(rows, s * 16 + quad * 4, columns);
        Unroll<4>([&](auto i) __attribute__((always_inline)) {
          V::StoreRegister(to + LaneAt(quad * 4 + i) * pitch, columns[i]);
        });
      });
    }
  }

  // Likewise of rows of `size` elements; null: zeros.
  template <DType dtype, bool pairs>
  static void Pack(const Element<dtype>* const (&rows)[kLanes], int64_t size, int64_t pitch,
                   int64_t width, float* to) {
    constexpr int64_t kWords = kSteps * 16, kPerStep = pairs ? 32 : 16;
    // Words already.
    const bool stored = (pairs || dtype == DType::kF32) && size % kPerStep == 0;
    auto* const words = reinterpret_cast<float*>(Scratch<9>(kLanes * kWords * sizeof(float)));
    for (int64_t k = 0; k < size; k += kSteps * kPerStep, to += kSteps * width) {
      const int64_t n = std::min(kSteps * kPerStep, size - k);
      const int64_t steps = PackedLinear::Steps<dtype, pairs>(n);
      const float* parts[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        float* const own = words + i * kWords;
        parts[i] = own;
        if (rows[i] == nullptr) {
          std::fill(own, own + steps * 16, 0.0F);
        } else if (stored) {
          parts[i] = reinterpret_cast<const float*>(rows[i] + k);
        } else {
          PackedLinear::PackRow<dtype, pairs>(rows[i] + k, n, 16, kLanes, own);
        }
      }
      PackWords(parts, steps, pitch, width, to);
    }
  }
};
